// Events of a run, each exactly once and in order: from the socket as they come, from the API where some are missing.
import { LiveSocket } from "../live/socket.js";
import { fresh, hidePill } from "../live/pill.js";
import { currentRound, fromSnapshot, hasEnded, reduce, reduceAll, reduceStored, withCommand, withParticipations } from "./state.js";

const PAGE = 1000;
/** How far back the log reaches when the page opens. */
const HISTORY = 1000;
/** A cohort whose rounds say so much that those before the last are read without their data. */
const LARGE = 60;
const EVERY_ROUND = 2 ** 31 - 1;
/** At most so many paints in any second, counted by when each was due: one that comes late must not push back those after it. The
 * server sends a little less often when it has gathered what clients say, so that a frame of its is painted when it comes. */
const PAINTS_A_SECOND = 4;

export async function getJson(url) {
  const response = await fetch(url, { headers: { Accept: "application/json" } });
  if (!response.ok) throw Object.assign(new Error(`${url} answered ${response.status}`), { detail: (await response.json().catch(() => ({}))).detail });
  return response.json();
}

export class Feed {
  #api; #paint; #socket = null; #timer = 0; #due = []; #catchingUp = false; #again = false;
  state = null;

  constructor(api, paint) {
    this.#api = api;
    this.#paint = paint;
  }

  /** Load the snapshot and the recent events, then follow. */
  async start(socketPath) {
    const snapshot = await getJson(`${this.#api}/snapshot`);
    this.state = fromSnapshot(snapshot, Math.max(0, snapshot.last_seq - HISTORY));
    this.#paint(this.state);
    const last = currentRound(this.state);
    await this.#fetchMissing(last?.expected > LARGE ? last.number : 0);
    this.#paint(this.state);
    if (hasEnded(this.state)) return;
    this.#socket = new LiveSocket(socketPath, { onFrame: (frame) => this.#take(frame), catchUp: () => this.#catchUp() });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#catchUp(); });
  }

  /** Older events, for the log alone. */
  async earlier() {
    const first = this.state.events[0]?.seq ?? this.state.lastSeq + 1;
    const after = Math.max(0, first - 1 - PAGE);
    const { events } = await getJson(`${this.#api}/events?after=${after}&limit=${first - 1 - after}&brief_before=${EVERY_ROUND}`);
    this.state = { ...this.state, events: [...events.filter((e) => !/^client\.(phase|progress)$/.test(e.kind)), ...this.state.events] };
    this.#paint(this.state);
  }

  /** What clients did in a round that is long past, and in those before it. */
  async lookBack(round) {
    const { participations } = await getJson(`${this.#api}/rounds/${round}/participations`);
    this.state = withParticipations(this.state, participations);
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
    this.state = reduceAll(this.state, events, reduce);
    if (gap) this.#catchUp();
    if (this.#timer) return;
    const now = performance.now();
    const due = this.#due.length < PAINTS_A_SECOND ? now : Math.max(now, this.#due[0] + 1000);
    this.#due = [...this.#due.slice(1 - PAINTS_A_SECOND), due];
    this.#timer = setTimeout(() => requestAnimationFrame(() => this.#flush()), due - now);
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
      const { results } = await getJson(`${this.#api}/commands?ordering=-id&limit=200`);
      this.state = results.reverse().reduce(withCommand, this.state);
    } catch (error) {
      console.warn(`Events could not be fetched: ${error.message}`);
    } finally {
      this.#catchingUp = false;
    }
    this.#apply([]);
    if (this.#again) this.#catchUp();
  }

  /** Of rounds before `brief` the log alone is wanted: what they were is known. */
  async #fetchMissing(brief = 0) {
    let more = true;
    while (more) {
      const page = await getJson(`${this.#api}/events?after=${this.state.lastSeq}&limit=${PAGE}&brief_before=${brief}`);
      this.state = reduceAll(this.state, page.events, reduceStored);
      more = page.more && page.events.length > 0;
    }
  }
}
