// Events of a run, each exactly once and in order: from the socket as they come, from the API where some are missing.
import { LiveSocket } from "../live/socket.js";
import { fresh, hidePill } from "../live/pill.js";
import { fromSnapshot, hasEnded, reduce, reduceStored, withCommand } from "./state.js";

const PAGE = 1000;
/** How far back the log reaches when the page opens. */
const HISTORY = 1000;
const PAINT_MS = 250;

async function getJson(url) {
  const response = await fetch(url, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}

export class Feed {
  #api; #paint; #socket = null; #timer = 0; #catchingUp = false; #again = false;
  state = null;

  constructor(api, paint) {
    this.#api = api;
    this.#paint = paint;
  }

  /** Load the snapshot and the recent events, then follow. */
  async start(socketPath) {
    const snapshot = await getJson(`${this.#api}/snapshot`);
    this.state = fromSnapshot(snapshot, Math.max(0, snapshot.last_seq - HISTORY));
    await this.#fetchMissing();
    this.#paint(this.state);
    if (hasEnded(this.state)) return;
    this.#socket = new LiveSocket(socketPath, { onFrame: (frame) => this.#take(frame), catchUp: () => this.#catchUp() });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#catchUp(); });
  }

  /** Older events, for the log alone. */
  async earlier() {
    const first = this.state.events[0]?.seq ?? this.state.lastSeq + 1;
    const after = Math.max(0, first - 1 - PAGE);
    const { events } = await getJson(`${this.#api}/events?after=${after}&limit=${first - 1 - after}`);
    this.state = { ...this.state, events: [...events.filter((e) => !/^client\.(phase|progress)$/.test(e.kind)), ...this.state.events] };
    this.#paint(this.state);
  }

  get paused() {
    return this.#socket?.paused ?? false;
  }

  togglePause() {
    this.#socket?.toggle();
  }

  /** A hidden tab applies nothing: what it misses is fetched when it is shown. */
  #take(frame) {
    if (document.hidden) return;
    if (frame.type === "hello" && frame.last_seq > this.state.lastSeq) this.#catchUp();
    else if (frame.type === "events") this.#apply(frame.events);
    else if (frame.type === "command") this.#order(frame.command);
  }

  #apply(events) {
    const gap = events.length && events[0].seq > this.state.lastSeq + 1;
    this.state = events.reduce(reduce, this.state);
    if (gap) this.#catchUp();
    this.#timer ||= setTimeout(() => requestAnimationFrame(() => this.#flush()), PAINT_MS);
  }

  #order(command) {
    this.state = withCommand(this.state, command);
    this.#apply([]);
  }

  #flush() {
    this.#timer = 0;
    fresh();
    this.#paint(this.state);
    if (this.#socket && hasEnded(this.state)) {
      this.#socket.end();
      this.#socket = null;
      hidePill();
    }
  }

  /** One request at a time; a gap noticed meanwhile is looked into when it is done. */
  async #catchUp() {
    this.#again = this.#catchingUp;
    if (this.#catchingUp || document.hidden || this.paused) return;
    this.#catchingUp = true;
    try {
      await this.#fetchMissing();
      const { commands } = await getJson(`${this.#api}/commands`);
      this.state = commands.reduce(withCommand, this.state);
    } catch (error) {
      console.warn(`Events could not be fetched: ${error.message}`);
    } finally {
      this.#catchingUp = false;
    }
    this.#apply([]);
    if (this.#again) this.#catchUp();
  }

  async #fetchMissing() {
    let more = true;
    while (more) {
      const page = await getJson(`${this.#api}/events?after=${this.state.lastSeq}&limit=${PAGE}`);
      this.state = page.events.reduce(reduceStored, this.state);
      more = page.more && page.events.length > 0;
    }
  }
}
