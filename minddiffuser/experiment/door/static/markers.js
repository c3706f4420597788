// Sends LSL markers with a page's own flip times to `minddiffuser markers`.
//
//   const markers = new Markers();           // or new Markers({url: "http://127.0.0.1:8766", token: "..."})
//   await markers.ready;                     // the door has measured this page's clock
//   markers.flip("cat-01");                  // when what was just put on the page is on the screen
//   markers.push("answer", event.timeStamp); // any time of performance.now()
//
// Both return a promise of the marker's LSL time. What was not answered is sent again when the connection is back; the
// door sends each marker once.
globalThis.Markers = class Markers {
  #socket; #token; #url; #page = crypto.getRandomValues(new Uint32Array(4)).join("-");
  #waiting = new Map(); #next = 0; #open = false; #closed = false; #settle;

  constructor({url, token} = {}) {
    const script = document.querySelector("script[src*='markers.js']");
    this.#url = new URL(url ?? script?.src ?? location.href);
    this.#token = token ?? new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
    this.ready = new Promise((resolve, reject) => { this.#settle = {resolve, reject}; });
    this.ready.catch(() => {});
    this.#connect();
  }

  // Marks the moment when what was just changed on the page is shown: the change is painted in the next frame, whose
  // picture is on the screen when the frame after it begins.
  flip(label) {
    return new Promise((resolve, reject) => requestAnimationFrame(() => requestAnimationFrame(
      (time) => this.push(label, time).then(resolve, reject))));
  }

  push(label, time = performance.now()) {
    const id = String(this.#next++);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, {resolve, reject, message: JSON.stringify({type: "marker", id, label: String(label), time})});
      if (this.#open) this.#send(this.#waiting.get(id).message);
    });
  }

  get unanswered() { return this.#waiting.size; }

  close() { this.#closed = true; this.#socket.close(); }

  // To a socket that is closing nothing is said: what waits is sent when the next one is ready.
  #send(text) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(text);
  }

  #connect() {
    const url = new URL("/ws", this.#url);
    url.protocol = this.#url.protocol === "https:" ? "wss:" : "ws:";
    this.#socket = new WebSocket(url);
    this.#socket.onopen = () => this.#socket.send(JSON.stringify({type: "hello", page: this.#page, token: this.#token}));
    this.#socket.onmessage = ({data}) => this.#take(JSON.parse(data), performance.now());
    this.#socket.onclose = ({code, reason}) => {
      this.#open = false;
      if (code === 4401) {
        const error = new Error(`the marker door refuses this page: ${reason}`);
        this.#settle.reject(error);
        for (const {reject} of this.#waiting.values()) reject(error);
        this.#waiting.clear();
      } else if (!this.#closed) setTimeout(() => this.#connect(), 500);
    };
  }

  #take(message, now) {
    if (message.type === "ping") this.#send(JSON.stringify({type: "pong", n: message.n, page: now}));
    else if (message.type === "ready" && !this.#open) {
      this.#open = true;
      this.#settle.resolve(message.error_ms);
      for (const {message: unanswered} of this.#waiting.values()) this.#send(unanswered);
    } else if (message.type === "sent" || message.type === "refused") {
      const asked = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.type === "sent") asked?.resolve(message.stamp);
      else {
        console.error(`marker refused: ${message.reason}`);
        asked?.reject(new Error(message.reason));
      }
    }
  }
};
