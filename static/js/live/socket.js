// A WebSocket that comes back: after 1, 2, 4, 8, then every 15 seconds, with jitter so that a restarted server isn't stormed.
import { onPillAct, showState } from "./pill.js";

const BACK_OFF_SECONDS = [1, 2, 4, 8, 15];
const FAILURES_BEFORE_POLLING = 3;
const POLL_MS = 5_000;
const SIGNED_OUT = 4401;
const GONE = 4404;

export class LiveSocket {
  #path; #onFrame; #catchUp; #show;
  #socket = null; #timer = 0; #failures = 0; #paused = false; #ended = false; #polling = 0;

  /** `catchUp` fetches what was missed: after a resume, and in place of the socket while that keeps failing. A quiet one shows no state. */
  constructor(path, { onFrame, catchUp, quiet = false }) {
    this.#path = path;
    this.#onFrame = onFrame;
    this.#catchUp = catchUp;
    this.#show = quiet ? () => {} : showState;
    if (!quiet) onPillAct(() => this.toggle());
    this.#show("connecting");
    this.#connect();
  }

  get paused() {
    return this.#paused;
  }

  toggle() {
    if (this.#ended) return;
    const wasLost = !this.#paused && this.#socket?.readyState !== WebSocket.OPEN;
    this.#paused = !this.#paused && !wasLost;
    if (this.#paused) this.#show("paused");
    else if (wasLost) this.#retryNow();
    else {
      this.#show(this.#polling ? "delayed" : "live");
      this.#catchUp();
    }
  }

  end() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#poll(false);
    this.#socket?.close();
  }

  #retryNow() {
    clearTimeout(this.#timer);
    this.#failures = 0;
    if (this.#socket?.readyState !== WebSocket.CONNECTING) this.#connect();
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.#path}`);
    this.#socket = socket;
    socket.addEventListener("open", () => this.#opened());
    socket.addEventListener("message", (event) => { if (this.#socket === socket) this.#received(JSON.parse(event.data)); });
    socket.addEventListener("close", (event) => { if (this.#socket === socket) this.#closed(event.code); });
  }

  #opened() {
    this.#failures = 0;
    if (this.#paused) return;
    this.#show("live");
    this.#catchUp();
  }

  #received(frame) {
    if (frame.type === "delayed") this.#delay(frame.delayed);
    else if (!this.#paused) this.#onFrame(frame);
  }

  /** The server can't push for now: ask. When it can again, ask once for what came in between. */
  #delay(delayed) {
    this.#poll(delayed);
    if (this.#paused) return;
    this.#show(delayed ? "delayed" : "live");
    this.#catchUp();
  }

  #poll(on) {
    clearInterval(this.#polling);
    this.#polling = on ? setInterval(() => { if (!this.#paused) this.#catchUp(); }, POLL_MS) : 0;
  }

  #closed(code) {
    if (this.#ended) return;
    this.#poll(false);
    if (code === SIGNED_OUT) location.reload();
    if (code === GONE) this.end();
    if (code === SIGNED_OUT || code === GONE) return;
    if (!this.#paused) this.#show("reconnecting");
    const seconds = BACK_OFF_SECONDS[Math.min(this.#failures, BACK_OFF_SECONDS.length - 1)];
    this.#failures += 1;
    if (this.#failures > FAILURES_BEFORE_POLLING && !this.#paused) this.#catchUp();
    this.#timer = setTimeout(() => this.#connect(), seconds * (750 + Math.random() * 500));
  }
}
