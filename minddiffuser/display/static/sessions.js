// What the page knows of each session: its last words, and the windows it has pictures of.

const KEEP = 60;

export class Session {
  constructor(name) {
    this.name = name;
    this.status = {};
    this.metrics = {};
    this.windows = []; // oldest first: {key, id, stage, meta, pictures: {kind: {url, sha256, blob}}, at}
    this.arrived = []; // page times of the last final pictures, in ms
    this.heard = null; // page time of the last frame, in ms
  }

  /** Take a frame in; returns its window. */
  add(header, pictures, now) {
    const age = 1000 * (header.age ?? 0);
    let window = this.windows.findLast((w) => w.id === header.window_id);
    if (!window || (header.stage !== "picture" && window.meta.stage === "picture")) {
      // The same id again after its final picture: the recording plays in a loop.
      window = { key: `${header.window_id}#${now}`, id: header.window_id, pictures: {}, meta: {}, at: now - age };
      this.windows.push(window);
    }
    window.stage = header.stage;
    window.meta = header.meta;
    window.at = now - age;
    for (const [kind, picture] of Object.entries(pictures)) {
      if (window.pictures[kind]) URL.revokeObjectURL(window.pictures[kind].url);
      window.pictures[kind] = { ...picture, url: URL.createObjectURL(picture.blob) };
    }
    this.heard = Math.max(this.heard ?? 0, window.at);
    if (header.stage === "picture" && age < 1000) this.arrived = [...this.arrived, now].slice(-12);
    return window;
  }

  /** Let the oldest windows go, except those that are looked at. */
  prune(kept) {
    while (this.windows.length > KEEP) {
      const index = this.windows.findIndex((w) => w !== kept);
      for (const { url } of Object.values(this.windows[index].pictures)) URL.revokeObjectURL(url);
      this.windows.splice(index, 1);
    }
  }

  /** Let all windows go. */
  forget() {
    for (const { pictures } of this.windows) for (const { url } of Object.values(pictures)) URL.revokeObjectURL(url);
    this.windows = [];
  }

  /** Whether it publishes no more. */
  get over() {
    return this.status.state === "offline" || this.status.state === "ended";
  }

  /** The newest window that has something to show: a picture, or the word that there is none. */
  get newest() {
    return this.windows.findLast((w) => w.pictures.preview || w.pictures.picture || w.stage === "abstained");
  }

  get finals() {
    return this.windows.filter((w) => w.pictures.picture);
  }

  get data() {
    return this.newest?.meta.data || this.status.data || "";
  }

  /** Milliseconds after which silence is worth a word: four usual intervals, 8 s at least. */
  get patience() {
    const times = this.arrived;
    const usual = times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) : 0;
    return Math.max(8000, 4 * usual);
  }

  /** [state, words] for the state line. */
  state(link, broker, now) {
    const { state, detail } = this.status;
    if (link.denied) return ["error", "No access: the address lacks its token"];
    if (!link.connected) return ["error", "Display server lost, trying again"];
    if (link.problem) return ["error", `The display has an error: ${link.problem}`];
    if (!broker.connected) return ["error", "Broker lost, trying again"];
    const last = this.heard === null ? "" : `, last picture ${ago(now - this.heard)}`;
    if (state === "source-lost") return ["error", `Source lost${last}`];
    if (this.over) return ["ended", `Session ended${last}`];
    if (!this.newest) return ["waiting", detail || (state === "running" ? "Running, no picture yet" : "Waiting for the first picture")];
    if (now - this.heard > this.patience) return ["stale", `Stale${last}`];
    if (this.newest.stage === "abstained") return ["abstained", "Abstained"];
    return ["live", "Live"];
  }
}

export function ago(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s ago`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}
