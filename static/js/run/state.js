// What the page knows of a run, and how an event changes it. Pure: (state, event) -> state, nothing else. An event that is
// applied twice changes nothing more, so that a snapshot which is newer than the first event replayed on it does no harm.

const KEPT_EVENTS = 5000;
/** Frequent, and shown elsewhere on the page. */
const NOT_LOGGED = new Set(["client.phase", "client.progress"]);

/** The maps that were copied in the batch of events that is being applied: they may be written to, and not be copied again for each event. */
let own = null;

function copied(map) {
  if (own?.has(map)) return map;
  const copy = new Map(map);
  own?.add(copy);
  return copy;
}

const time = (text) => (text ? Date.parse(text) : null);
const roundKey = (number, attempt) => `${number}/${attempt}`;

/** Tables come by columns: { name: [values] }. */
function rowsOf(columns) {
  const entries = Object.entries(columns);
  return entries[0][1].map((_, at) => Object.fromEntries(entries.map(([name, values]) => [name, values[at]])));
}

/** The state as the server's snapshot tells it; `lastSeq` is where the replay of events begins. */
export function fromSnapshot(snapshot, lastSeq) {
  const rounds = roundsOf(snapshot);
  return {
    run: {
      status: snapshot.run.status,
      reason: snapshot.run.reason,
      numRounds: snapshot.run.num_rounds,
      roundsDone: snapshot.run.rounds_done,
      startedAt: time(snapshot.run.started_at),
      endedAt: time(snapshot.run.ended_at),
    },
    waiting: null,
    trainingOn: new Map(),
    clients: new Map(rowsOf(snapshot.clients).map((client) => [client.id, client])),
    rounds,
    current: [...rounds.keys()].at(-1) ?? null,
    metrics: metricsOf(snapshot.curves),
    models: new Map(rowsOf(snapshot.models).map((model) => [model.round, model])),
    commands: snapshot.commands,
    events: [],
    lastSeq,
  };
}

function metricsOf(curves) {
  const metrics = new Map();
  for (const { name, source, rounds, values } of curves) {
    if (!metrics.has(name)) metrics.set(name, new Map());
    metrics.get(name).set(source, new Map(rounds.map((round, at) => [round, values[at]])));
  }
  return metrics;
}

function roundsOf(snapshot) {
  const rounds = new Map();
  for (const round of rowsOf(snapshot.rounds)) {
    rounds.set(roundKey(round.number, round.attempt), {
      number: round.number,
      attempt: round.attempt,
      status: round.status,
      startedAt: time(round.started_at),
      closedAt: time(round.closed_at),
      committedAt: time(round.committed_at),
      endedAt: time(round.ended_at),
      received: round.received,
      expected: round.expected,
      bytesUp: round.bytes_up,
      bytesDown: round.bytes_down,
      bytesTotal: round.bytes_total,
      parts: new Map(),
    });
  }
  for (const part of rowsOf(snapshot.participations)) {
    rounds.get(roundKey(part.round, part.attempt))?.parts.set(part.client, participation(part));
  }
  return rounds;
}

/** Take in participations of rounds that the page knew by their totals alone. */
export function withParticipations(state, participations) {
  const rounds = new Map(state.rounds);
  for (const part of rowsOf(participations)) {
    const key = roundKey(part.round, part.attempt);
    const round = rounds.get(key);
    if (!round || state.rounds.get(key).parts.size) continue;
    if (round === state.rounds.get(key)) rounds.set(key, { ...round, parts: new Map() });
    rounds.get(key).parts.set(part.client, participation(part));
  }
  return { ...state, rounds };
}

/** The run as it was when a round had ended. `past` says so. */
export function asOf(state, number) {
  const rounds = new Map([...state.rounds].filter(([, round]) => round.number <= number));
  const [key, last] = [...rounds].at(-1) ?? [null, null];
  const upTo = (values) => new Map([...values].filter(([round]) => round <= number));
  const metrics = new Map([...state.metrics].map(([name, sources]) => [name, new Map([...sources].map(([source, values]) => [source, upTo(values)]))]));
  const endedAt = last ? last.endedAt ?? last.committedAt ?? last.closedAt : state.run.startedAt;
  return {
    ...state,
    past: number,
    run: { ...state.run, roundsDone: number, status: "completed", endedAt },
    waiting: null,
    trainingOn: new Map(),
    rounds,
    current: key,
    metrics,
    models: upTo(state.models),
  };
}

function participation(part) {
  const done = part.outcome === "completed";
  return {
    outcome: part.outcome,
    reason: part.reason,
    phase: done ? "done" : null,
    fraction: 0,
    since: {},
    endedAt: null,
    seconds: { downloading: part.download_seconds, training: part.train_seconds, uploading: part.upload_seconds },
    bytesUp: part.bytes_up,
    loss: part.loss,
    replaces: part.replaces,
    steps: stepsOf(part),
    expected: null,
    ...looks(part),
  };
}

/** "37 of 120 steps", of a training that was ended early; empty of a whole one. */
const stepsOf = ({ steps_done: done, steps_planned: planned }) => (done < planned ? `${done} of ${planned} steps` : "");

/** How an update looked beside the others: the same names in a participation and in the event of a commit. */
const looks = (part) => ({
  normRatio: part.norm_ratio,
  cosine: part.cosine_to_aggregate,
  flagged: part.flagged,
  flagReason: part.flag_reason,
});

function withMetric(metrics, { source, name, round, value }) {
  const sources = copied(metrics.get(name) ?? new Map());
  const values = copied(sources.get(source) ?? new Map()).set(round, value);
  return copied(metrics).set(name, sources.set(source, values));
}

// --- events ----------------------------------------------------------------------------------------------------------

const patchRun = (state, patch) => ({ ...state, run: { ...state.run, ...patch } });

function patchRound(state, key, patch) {
  const round = state.rounds.get(key);
  return round ? { ...state, rounds: copied(state.rounds).set(key, { ...round, ...patch }) } : state;
}

/** The attempt that an event of a round speaks of: the newest one. */
function newest(state, number) {
  let attempt = 1;
  while (state.rounds.has(roundKey(number, attempt + 1))) attempt += 1;
  return roundKey(number, attempt);
}

function patchPart(state, event, patch) {
  const { client: id, round: number, data } = event;
  const key = newest(state, number);
  const round = state.rounds.get(key);
  if (!round || !id) return state;
  const known = data.name ? withClients(state, [{ id, name: data.name }]) : state;
  const patched = (part) => ({ ...part, ...patch(part) });
  const between = state.trainingOn.get(id);
  if (between) return { ...known, trainingOn: new Map(state.trainingOn).set(id, patched(between)) };
  const part = round.parts.get(id) ?? (round.status === "running" ? blankPart() : null);
  return part ? patchRound(known, key, { parts: copied(round.parts).set(id, patched(part)) }) : state;
}

/** Clients that have enrolled since the page was loaded are known by their names alone. */
function withClients(state, clients) {
  const unknown = clients.filter(({ id }) => !state.clients.has(id));
  if (!unknown.length) return state;
  return { ...state, clients: new Map([...state.clients, ...unknown.map(({ id, name }) => [id, { id, name, number: 0 }])]) };
}

const blankPart = () => ({
  outcome: "pending",
  reason: "",
  phase: null,
  fraction: 0,
  since: {},
  endedAt: null,
  seconds: {},
  bytesUp: null,
  loss: null,
  replaces: null,
  steps: "",
  expected: null,
  busy: false,
  normRatio: null,
  cosine: null,
  flagged: false,
  flagReason: "",
});

const endPart = (state, event) =>
  patchPart(state, event, () => ({ outcome: event.data.outcome, reason: event.data.reason, endedAt: time(event.at) }));

function beginRound(state, event) {
  const { attempt, cohort, deadline_seconds: deadline } = event.data;
  const key = roundKey(event.round, attempt);
  const known = state.rounds.get(key);
  const partOf = (id) => {
    const part = known?.parts.get(id);
    return part && part.outcome !== "pending" ? part : state.trainingOn.get(id) ?? blankPart();
  };
  const round = {
    closedAt: null,
    committedAt: null,
    endedAt: null,
    bytesUp: 0,
    bytesDown: 0,
    received: 0,
    ...known,
    number: event.round,
    attempt,
    status: "running",
    startedAt: time(event.at),
    deadline,
    expected: cohort.length,
    parts: new Map(cohort.map(({ id }) => [id, partOf(id)])),
  };
  return {
    ...withClients(state, cohort),
    waiting: null,
    trainingOn: new Map(),
    current: key,
    rounds: copied(state.rounds).set(key, round),
  };
}

/** Who trains on was no part of the round; whoever else had not answered when it ended was called off. */
function endParts(state, { round: number, data }) {
  const key = newest(state, number);
  const training = new Set(data.training);
  const [parts, trainingOn] = [new Map(), new Map()];
  for (const [id, part] of state.rounds.get(key)?.parts ?? []) {
    if (part.outcome !== "pending") parts.set(id, part);
    else if (training.has(id)) trainingOn.set(id, part);
    else parts.set(id, { ...part, outcome: "cancelled", reason: data.reason ?? "" });
  }
  return patchRound({ ...state, trainingOn }, key, { parts });
}

function commitRound(state, event) {
  const { data, round } = event;
  const key = newest(state, round);
  const ended = endParts(state, event);
  const committed = patchRound(ended, key, {
    status: "committed",
    committedAt: time(event.at),
    bytesUp: data.bytes_up,
    bytesDown: data.bytes_down,
    bytesTotal: ended.rounds.get(key)?.bytesTotal ?? bytesBefore(ended, key) + data.bytes_up + data.bytes_down,
    parts: withLooks(ended.rounds.get(key)?.parts ?? new Map(), data.updates ?? {}),
  });
  const models = new Map(committed.models).set(round, { ...committed.models.get(round), round, sha256: data.sha256, size: data.size });
  const measured = addMetrics({ ...committed, models }, event);
  return patchRun(measured, { roundsDone: Math.max(measured.run.roundsDone, round) });
}

const bytesBefore = (state, key) => [...state.rounds].reduce((most, [k, round]) => (k === key ? most : Math.max(most, round.bytesTotal ?? 0)), 0);

function withLooks(parts, updates) {
  const next = new Map(parts);
  for (const [id, update] of Object.entries(updates)) next.set(id, { ...(next.get(id) ?? blankPart()), ...looks(update) });
  return next;
}

function addMetrics(state, event) {
  const metrics = event.data.metrics.reduce((all, m) => withMetric(all, { ...m, round: event.round }), state.metrics);
  return { ...state, metrics };
}

/** A buffered round asks whom it has lost again: the part begins anew. */
function enterPhase(part, { at, data: { phase } }) {
  const open = part.outcome === "pending" || part.outcome === "completed";
  const begun = open ? part : blankPart();
  return { ...begun, busy: false, phase, fraction: 0, since: { ...begun.since, [phase]: time(at) } };
}

const HANDLERS = {
  "run.started": (state, event) => patchRun(state, { status: "running", startedAt: state.run.startedAt ?? time(event.at) }),
  "run.resumed": (state) => patchRun(state, { status: "running" }),
  "run.waiting": (state, event) => ({ ...state, waiting: event.data }),
  "run.stopping": (state) => patchRun(state, { status: "stopping" }),
  "run.pausing": (state) => patchRun(state, { status: "pausing" }),
  "run.unpaused": (state) => patchRun(state, { status: "running" }),
  "run.paused": (state, event) => ({ ...patchRun(state, { status: "paused", reason: event.data.reason }), waiting: null, trainingOn: new Map() }),
  "run.retried": (state, event) => ({ ...patchRun(state, { status: "queued", reason: event.data.reason }), waiting: null, trainingOn: new Map() }),
  "run.finished": (state, event) => ({
    ...patchRun(state, { status: event.data.outcome, reason: event.data.reason, endedAt: time(event.at) }),
    waiting: null,
    trainingOn: new Map(),
  }),
  "model.initialised": (state, event) => {
    const { sha256, size } = event.data;
    const models = new Map(state.models).set(0, { ...state.models.get(0), round: 0, sha256, size });
    return addMetrics({ ...state, models }, event);
  },
  "round.started": beginRound,
  "round.closed": (state, event) =>
    patchRound({ ...state, waiting: null }, newest(state, event.round), {
      closedAt: time(event.at),
      received: event.data.received,
      expected: event.data.expected,
    }),
  "round.committed": commitRound,
  "round.evaluated": (state, event) =>
    addMetrics(patchRound(state, newest(state, event.round), { endedAt: time(event.at) }), event),
  "round.abandoned": (state, event) =>
    patchRound(endParts(state, event), newest(state, event.round), { status: "abandoned", endedAt: time(event.at) }),
  "client.phase": (state, event) => patchPart(state, event, (part) => enterPhase(part, event)),
  "client.progress": (state, event) =>
    patchPart(state, event, () => ({ phase: event.data.phase, fraction: event.data.fraction })),
  "client.completed": (state, event) =>
    patchPart(state, event, () => ({
      outcome: "completed",
      phase: "done",
      endedAt: time(event.at),
      seconds: {
        downloading: event.data.download_seconds,
        training: event.data.train_seconds,
        uploading: event.data.upload_seconds,
      },
      bytesUp: event.data.bytes_up,
      steps: stepsOf(event.data),
      loss: event.data.metrics.loss ?? null,
    })),
  "round.waiting": (state, event) => ({ ...state, waiting: { busy: true, have: event.data.in_hand, need: event.data.needed } }),
  "round.going": (state) => ({ ...state, waiting: null }),
  "client.waits": (state, event) => patchPart(state, event, () => ({ busy: true })),
  "client.expected": (state, event) =>
    patchPart(state, event, () => ({ busy: false, expected: { by: time(event.at) + event.data.seconds * 1000, usual: event.data.usual } })),
  "client.replaces": (state, event) => patchPart(state, event, () => ({ replaces: event.data.replaces })),
  "client.asked_to_finish": (state, event) => patchPart(state, event, () => ({ expected: null })),
  "client.late": (state, event) =>
    patchPart(state, event, (part) => (part.outcome === "late" ? { reason: `${part.reason} Late by ${event.data.seconds.toFixed(1)} s.` } : {})),
  "client.failed": endPart,
  "client.refused": endPart,
  "client.evaluated": (state, event) => patchPart(state, event, () => ({ phase: "done" })),
  "client.not_evaluated": (state, event) => patchPart(state, event, () => ({ phase: "done", reason: `Not evaluated: ${event.data.reason}` })),
};

/** Take in that somebody has done something to the run. */
export function withCommand(state, command) {
  if (state.commands.some(({ id }) => id === command.id)) return state;
  const numRounds = command.kind === "extend" ? command.data.num_rounds : state.run.numRounds;
  return patchRun({ ...state, commands: [...state.commands, command] }, { numRounds });
}

/** Apply many events: what they change is copied once for all of them. */
export function reduceAll(state, events, step = reduce) {
  own = new WeakSet();
  try {
    return events.reduce((now, event) => step(now, event), state);
  } finally {
    own = null;
  }
}

/** Events as they are stored: those between that are missing don't exist any more. */
export const reduceStored = (state, event) =>
  event.seq > state.lastSeq ? reduce({ ...state, lastSeq: event.seq - 1 }, event) : state;

function logged(events, event) {
  if (!own?.has(events)) {
    events = events.slice(-KEPT_EVENTS + 1);
    own?.add(events);
  }
  events.push(event);
  return events;
}

/** Apply one event. An event that was seen before, or whose predecessor is missing, changes nothing. */
export function reduce(state, event) {
  if (event.seq !== state.lastSeq + 1) return state;
  const next = (event.data && HANDLERS[event.kind]?.(state, event)) || state;
  return { ...next, events: NOT_LOGGED.has(event.kind) ? next.events : logged(next.events, event), lastSeq: event.seq };
}

// --- questions to a state --------------------------------------------------------------------------------------------

const ENDED = new Set(["completed", "stopped", "failed"]);
export const hasEnded = (state) => ENDED.has(state.run.status);
export const clientOf = (state, id) => state.clients.get(id) ?? { id, name: id, number: 0 };
export const currentRound = (state) => state.rounds.get(state.current) ?? null;
/** The parts of the newest round, and those of clients that train on between it and the next. */
export const atWork = (state) => new Map([...(currentRound(state)?.parts ?? []), ...state.trainingOn]);
export const committedRounds = (state) =>
  [...state.rounds.values()].filter((r) => r.status === "committed").sort((a, b) => a.number - b.number);
export const latestCommitted = (state) => committedRounds(state).at(-1) ?? null;

/** The values of a metric by a source, as [[round, value], …] in order of rounds. */
export const series = (state, name, source) =>
  [...(state.metrics.get(name)?.get(source) ?? [])].sort(([a], [b]) => a - b);

/** What a client counts for by the newest order, in per cent. */
export const weightOf = (state, id) => state.commands.findLast(({ kind, data }) => kind === "weigh" && data.client === id)?.data ?? { percent: 100 };

const MOST_TRUSTED_FIRST = ["server", "federated", "fit"];
export function bestSource(state, name) {
  return MOST_TRUSTED_FIRST.find((source) => state.metrics.get(name)?.has(source)) ?? null;
}
