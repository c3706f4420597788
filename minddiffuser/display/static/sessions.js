// What the page knows of each session: its last words, and the windows it has pictures of.

import { KINDS } from "./swap.js";

const KEEP = 60;
// What a window may have at each stage: where it comes again, its meta names the pictures of before until there are others.
const upTo = (stage) => (stage === "abstained" ? ["original"] : KINDS.slice(0, KINDS.indexOf(stage) + 1));
const NOT_DECODED = { rejected: "Rejected", abstained: "Abstained", dropped: "Dropped", failed: "Failed" };

/** What became of a window that gave no picture, in the one word for it. */
export const fate = (window) => NOT_DECODED[window.meta.state] ?? "Abstained";

export class Session {
  constructor(name) {
    this.name = name;
    this.status = {};
    this.metrics = {};
    this.participant = ""; // as a status named it: the broker's last word knows nothing of it
    this.windows = []; // oldest first: {key, id, stage, meta, pictures: {kind: {url, sha256, blob}}, at}
    this.arrived = []; // page times of the last final pictures, in ms
    this.heard = null; // page time of the last frame, in ms
    this.published = 0; // final pictures that came while this page looked
    this.right = { right: 0, of: 0 }; // names that were right, of those whose truth is known, while this page looked
  }

  /** Take a status or metrics in. */
  hear(note) {
    this[note.type] = note[note.type];
    if (typeof this.status.participant === "string") this.participant = this.status.participant;
  }

  /** Take a frame in; returns its window. */
  add(header, pictures, now) {
    const age = 1000 * (header.age ?? 0);
    const before = this.windows.findLast((w) => w.id === header.window_id);
    let window = before;
    if (!before || before.stage === "abstained" || (header.stage !== "picture" && before.stage === "picture")) {
      // The same id again after its end: the recording plays in a loop.
      window = { key: `${header.window_id}#${now}`, id: header.window_id, pictures: {}, meta: {}, at: now - age };
      this.windows.push(window);
    }
    window.stage = header.stage;
    window.meta = header.meta;
    window.at = now - age;
    for (const kind of upTo(header.stage)) {
      const sha256 = header.meta.sha256?.[kind];
      // What was sent is not sent again: not for a window that comes twice, nor where two stages gave the same.
      const picture = pictures[kind] ?? [before, window].flatMap((w) => Object.values(w?.pictures ?? {})).find((same) => same.sha256 === sha256);
      if (!sha256 || !picture || window.pictures[kind]?.sha256 === sha256) continue;
      if (window.pictures[kind]) release(window.pictures[kind].url);
      window.pictures[kind] = { sha256, blob: picture.blob, url: URL.createObjectURL(picture.blob) };
    }
    this.heard = Math.max(this.heard ?? 0, window.at);
    if (header.stage === "picture") this.#count(header, age, now);
    return window;
  }

  #count({ meta }, age, now) {
    if (age < 1000) this.arrived = [...this.arrived, now].slice(-12);
    this.published += 1;
    if (typeof meta.right === "boolean") this.right = { right: this.right.right + meta.right, of: this.right.of + 1 };
  }

  /** Let the oldest windows go. */
  prune() {
    while (this.windows.length > KEEP) for (const { url } of Object.values(this.windows.shift().pictures)) release(url);
  }

  /** Let all windows go. */
  forget() {
    for (const { pictures } of this.windows) for (const { url } of Object.values(pictures)) release(url);
    this.windows = [];
  }

  /** This moment of the session, which does not change. */
  frozen() {
    const windows = this.windows.map((w) => ({ ...w, pictures: { ...w.pictures } }));
    return Object.assign(new Session(this.name), this, { windows });
  }

  /** Whether it publishes no more. */
  get over() {
    return this.status.state === "offline" || this.status.state === "ended";
  }

  /** The newest window that has something to say: a picture, or that there is none. */
  get newest() {
    return this.windows.findLast((w) => w.pictures.preview || w.pictures.picture || w.stage === "abstained");
  }

  get finals() {
    return this.windows.filter((w) => w.pictures.picture);
  }

  /** The window whose pictures stand: the last that is whole; before the first one, the one that is coming. */
  get standing() {
    return this.windows.findLast((w) => w.pictures.picture) ?? this.windows.findLast((w) => w.pictures.preview);
  }

  get data() {
    return this.newest?.meta.data || this.status.data || "";
  }

  /** How often the first name was right: as the session counts, else as this page saw it. */
  get told() {
    const told = this.windows.findLast((w) => Number.isFinite(w.meta.told?.of))?.meta.told ?? this.right;
    return told.of > 0 ? told : null;
  }

  /** Milliseconds after which silence is worth a word: four usual intervals, 8 s at least. */
  get patience() {
    const times = this.arrived;
    const usual = times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) : 0;
    return Math.max(8000, 4 * usual);
  }

  /** [state, word, sentence] for the state line and the notice. */
  state(link, broker, now) {
    const last = this.heard === null ? "." : `; last picture ${ago(now - this.heard)}.`;
    // A session that has ended says why, whether or not what served its page is still there.
    if (this.over && !link.denied) return this.#own(last, now);
    return lost(link, broker, last) ?? this.#own(last, now);
  }

  #own(last, now) {
    const { state, detail } = this.status;
    if (state === "source-lost") return ["error", "Source lost", `The source is lost${last}`];
    if (state === "engine-lost") return ["error", "Engine lost", `The engine is lost${detail ? `: ${detail}` : ""}${last}`];
    if (this.over) return ["ended", "Ended", `The session has ended${detail ? `: ${detail}` : ""}${last}`];
    if (!this.newest) return ["waiting", state === "running" ? "Running" : "Waiting", detail || "No picture yet."];
    if (now - this.heard > this.patience) return ["stale", "Stale", `Nothing new${last}`];
    if (this.newest.stage === "abstained") return ["abstained", fate(this.newest), ""];
    return ["live", "Live", ""];
  }
}

/** The state where not the session, but the way to it is gone. */
function lost(link, broker, last) {
  if (link.denied) return ["error", "No access", "The page's address lacks its token: open it as it was printed."];
  if (link.ended) return ["ended", "Ended", `The program that serves this page has ended${last}`];
  if (!link.connected) return ["error", "Display server lost", `The display's server is lost; trying again${last}`];
  if (link.problem) return ["error", "Display error", `The display has an error: ${link.problem}`];
  if (!broker.connected) return ["error", "Broker lost", `The broker is lost; trying again${last}`];
  return null;
}

let kept = null; // while the page is paused: addresses of pictures that must not go yet

/** Let an address of a picture go, or later, where the paused page still shows it. */
function release(url) {
  if (kept) kept.add(url);
  else URL.revokeObjectURL(url);
}

/** Keep all pictures there while the page is paused; let those go afterwards that were let go meanwhile. */
export function keepPictures(paused) {
  if (!paused) for (const url of kept ?? []) URL.revokeObjectURL(url);
  kept = paused ? kept ?? new Set() : null;
}

export function ago(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s ago`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}
