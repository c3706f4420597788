// Raw traces and spectrum, for a page on the machine that decodes: they come from its own server, never over MQTT.

import { record } from "./charts.js";
import { text } from "./facts.js";
import { fetchTraces } from "./wire.js";

const $ = (id) => document.getElementById(id);
const SECONDS = 5;
const ROW_PX = 14; // below it, fewer channels are drawn
const AT_MOST = 16;
const EVERY_MS = 100;
const AGAIN_MS = 2000;
const AWAY = "Raw traces are shown on the machine that decodes, nowhere else.";

/** Draws the traces of one session at a time, while somebody looks. */
export class Traces {
  constructor() {
    this.session = undefined; // neither followed nor left out yet
    this.rows = []; // the newest SECONDS of each channel
    this.latest = {};
    this.away = "";
    this.paused = false;
    setTimeout(() => this.#ask(), EVERY_MS);
  }

  /** Follow a session, or none (null); while paused, nothing moves. */
  follow(session, paused) {
    this.paused = paused;
    if (session === this.session) return;
    Object.assign(this, { session, rows: [], latest: {}, away: session === null ? AWAY : "" });
    this.draw();
  }

  /** Ask for what has come, again and again; not while nobody sees it. */
  async #ask() {
    const { session } = this;
    let wait = EVERY_MS;
    if (session && !this.paused && !this.away && !document.hidden && $("curves").offsetHeight > 0) {
      try {
        const [status, frame] = await fetchTraces(session, this.latest.next);
        if (session === this.session && !this.paused) this.#answer(status, frame);
        if (status !== 200) wait = AGAIN_MS / 4;
      } catch {
        wait = AGAIN_MS; // the server is gone for a while; the state line says so
      }
    }
    setTimeout(() => this.#ask(), wait);
  }

  #answer(status, frame) {
    if (status === 200) this.take(record(frame));
    else if (status !== 204) this.away = AWAY;
    if (status !== 204) this.draw();
  }

  /** Take a frame in, as `minddiffuser.traces` makes it. */
  take(frame) {
    const { channels, data, sfreq } = frame;
    if (!Array.isArray(channels) || !Array.isArray(data) || !(sfreq > 0)) return;
    if (JSON.stringify(channels) !== JSON.stringify(this.latest.channels)) this.rows = channels.map(() => []);
    const length = Math.round(SECONDS * sfreq);
    this.rows = this.rows.map((row, i) => [...row, ...(Array.isArray(data[i]) ? data[i] : [])].slice(-length));
    this.latest = { ...frame, spectrum: frame.spectrum ?? this.latest.spectrum };
  }

  draw() {
    const there = this.rows.length > 0;
    $("curves").classList.toggle("none", !there);
    $("traces").hidden = $("spectrum").hidden = !there;
    if (!there) {
      text($("curves-about"), this.away || "No samples yet.");
      return;
    }
    const { channels, sfreq, mains_hz: mains } = this.latest;
    const unit = this.latest.units?.[0];
    const most = Math.min(AT_MOST, Math.max(4, Math.floor($("traces").clientHeight / ROW_PX)));
    const step = Math.ceil(channels.length / most);
    const picked = channels.map((_, i) => i).filter((i) => i % step === 0);
    const scale = usual(picked.map((i) => this.rows[i]));
    drawTraces($("traces"), picked.map((i) => [channels[i], this.rows[i]]), SECONDS * sfreq, scale);
    const some = picked.length < channels.length ? `${picked.length} of ${channels.length} channels` : `${channels.length} channels`;
    text($("curves-about"), `${SECONDS} s, ${some}, ${amount(2 * scale, unit)} a row${mains > 0 ? `; mains ${mains} Hz` : ""}`);
    drawSpectrum($("spectrum"), record(this.latest.spectrum), mains);
  }
}

/** Half the height of a row: three times the usual deviation, so that a wild channel does not flatten the others. */
function usual(rows) {
  const spreads = rows.filter((row) => row.length).map((row) => {
    const mid = middle(row);
    return middle(row.filter(Number.isFinite).map((v) => Math.abs(v - mid)));
  }).filter((v) => v > 0).sort((a, b) => a - b);
  return 4.5 * (spreads[Math.floor(spreads.length / 2)] ?? 1);
}

function middle(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0;
}

const PREFIXES = [["", 1], ["m", 1e-3], ["µ", 1e-6], ["n", 1e-9], ["p", 1e-12], ["f", 1e-15]];

/** A level with its unit, by the prefix that makes it readable. */
function amount(value, unit) {
  const si = unit === "V" || unit === "T";
  const [prefix, factor] = (si && PREFIXES.find(([, least]) => value >= 0.995 * least)) || PREFIXES[0];
  return `${Number((value / factor).toPrecision(2))}${unit ? ` ${prefix}${unit}` : ""}`;
}

/** A canvas of its own size in device pixels, cleared: [context, width, height, colour of]. */
function blank(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = globalThis.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.body);
  context.font = `${0.78 * parseFloat(style.fontSize)}px system-ui, sans-serif`;
  return [context, width, height, (name) => style.getPropertyValue(name)];
}

function drawTraces(canvas, rows, length, scale) {
  const [context, width, height, colour] = blank(canvas);
  const tall = height / rows.length;
  const left = 34;
  rows.forEach(([name, values], i) => {
    const mid = middle(values);
    const zero = tall * (i + 0.5);
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1;
    context.beginPath();
    let pen = false;
    values.forEach((value, k) => {
      if (!Number.isFinite(value)) {
        pen = false;
        return;
      }
      const x = left + ((width - left) * (length - values.length + k)) / length;
      const y = zero - (tall / 2) * Math.max(-1.5, Math.min(1.5, (value - mid) / scale));
      if (pen) context.lineTo(x, y);
      else context.moveTo(x, y);
      pen = true;
    });
    context.stroke();
    context.fillStyle = colour("--soft");
    context.fillText(String(name).slice(0, 6), 0, zero + 4);
  });
}

function drawSpectrum(canvas, { hz, db }, mains) {
  const [context, width, height, colour] = blank(canvas);
  if (!Array.isArray(hz) || !Array.isArray(db) || hz.length < 2) return;
  const [low, high] = [Math.min(...db.filter(Number.isFinite)), Math.max(...db.filter(Number.isFinite))];
  const [left, below] = [34, 13];
  const x = (f) => left + ((width - left) * f) / hz.at(-1);
  const y = (d) => 4 + (height - below - 4) * (1 - (d - low) / Math.max(1, high - low));
  if (mains > 0 && mains <= hz.at(-1)) {
    context.strokeStyle = context.fillStyle = colour("--warn");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x(mains), 0);
    context.lineTo(x(mains), height - below);
    context.stroke();
    context.setLineDash([]);
    context.fillText("mains", Math.min(x(mains) + 3, width - 34), 10);
  }
  context.strokeStyle = colour("--good");
  context.beginPath();
  hz.forEach((f, i) => (i ? context.lineTo(x(f), y(db[i] ?? low)) : context.moveTo(x(f), y(db[i] ?? low))));
  context.stroke();
  context.fillStyle = colour("--soft");
  context.fillText(`${Math.round(high - low)} dB`, 0, 12);
  context.fillText("0 Hz", left, height - 2);
  const end = `${Math.round(hz.at(-1))} Hz`;
  context.fillText(end, width - context.measureText(end).width, height - 2);
}
