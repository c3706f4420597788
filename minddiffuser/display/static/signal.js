// The signal first: what is wrong with it, by channel; then the markers; then the rates.

import { count, facts, milliseconds, text } from "./facts.js";
import { record } from "./charts.js";
import { channelsOf, drawHead, drawScale } from "./head.js";
import { eventLabel } from "./rooms.js";
import { fate } from "./sessions.js";

const $ = (id) => document.getElementById(id);
const LINES = 3;
const LABELS = 3;

/** Draw what comes in of a session. */
export function drawSignal(of) {
  const ingest = record(of.metrics.ingest);
  const streams = Object.entries(record(ingest.streams)).map(([name, each]) => [name, record(each)]);
  const found = channelsOf(of.metrics);
  const bad = found.channels.filter((channel) => channel.bad);
  text($("source"), [ingest.state ?? of.status.state, found.channels.length ? `${found.channels.length} channels` : ""].filter(Boolean).join(", "));
  drawProblems(of.over ? [] : ingest.problems);
  drawHead($("head"), found);
  drawScale($("scale"));
  text($("head-legend"), found.calibrated ? "level against the calibration's" : "level against the other channels'");
  drawBad(bad, found.channels.length);
  drawMarkers(of, ingest);
  drawRates(ingest, streams);
}

/** What is wrong with the input now, a line each, as text; beyond a few, how many more. */
function drawProblems(problems) {
  const all = (Array.isArray(problems) ? problems : []).filter((line) => typeof line === "string");
  const lines = all.length > LINES ? [...all.slice(0, LINES - 1), `and ${all.length - LINES + 1} more`] : all;
  const list = $("problems");
  list.hidden = !lines.length;
  list.title = all.join("\n");
  if (JSON.stringify(lines) === JSON.stringify([...list.children].map((item) => item.textContent))) return;
  list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

/** Bad channels by name and why. */
function drawBad(bad, among) {
  $("bad-channels").hidden = !among;
  $("bad-channels").classList.toggle("bad", bad.length > 0);
  const words = bad.slice(0, LINES).map(({ name, reason }) => `${name} (${reason})`).join(", ");
  const more = bad.length > LINES ? ` and ${bad.length - LINES} more` : "";
  text($("bad-channels"), bad.length ? `Bad: ${words}${more}` : "No bad channel");
  $("bad-channels").title = bad.map(({ name, reason }) => `${name}: ${reason}`).join("\n");
}

/** Last labels, counts, and what kept markers from a window. */
function drawMarkers(of, ingest) {
  const unmatched = ingest.unmatched ?? ingest.unnamed; // the second names are those of older programs
  const incomplete = ingest.incomplete ?? ingest.unmade;
  const duplicates = ingest.duplicates ?? ingest.doubled;
  text($("marker-count"), Number.isFinite(ingest.events) ? count(ingest.events) : "");
  const labels = of.windows.slice(-LABELS).reverse().map((w) => [eventLabel(w) || w.id, mark(w)]);
  const words = JSON.stringify(labels);
  if ($("labels").dataset.shown !== words) {
    $("labels").dataset.shown = words;
    $("labels").replaceChildren(...labels.map(([label, [sign, what]]) => {
      const item = document.createElement("li");
      item.title = `${label}: ${what}`;
      item.append(Object.assign(document.createElement("span"), { textContent: label }),
        Object.assign(document.createElement("i"), { className: what, textContent: sign ? ` ${what}` : "" }));
      return item;
    }));
  }
  const without = [[ingest.ignored, "that are no events"], [incomplete, "outside the data"], [duplicates, "twice"], [ingest.pending, "waiting"]]
    .filter(([number]) => number > 0).map(([number, why]) => `${count(number)} ${why}`).join(", ");
  const drops = record(of.metrics.drops);
  const fates = [["published", of.metrics.published], ["rejected", drops.rejected ?? ingest.rejected], ["abstained", drops.abstained], ["dropped", drops.dropped ?? drops.windows], ["failed", drops.failed]]
    .filter(([, number]) => number > 0);
  facts($("markers"), [
    ...(unmatched > 0 ? [["Unmatched", count(unmatched), "They name no picture", "bad"]] : []),
    ...(without ? [["No window", without, "", ingest.ignored > 0 || incomplete > 0 ? "bad" : ""]] : []),
    [`Windows: ${count(of.metrics.windows ?? ingest.windows)}`, fates.map(([what, number]) => `${count(number)} ${what}`).join(", ")],
  ]);
}

function mark(window) {
  if (window.stage === "abstained") return ["✗", fate(window).toLowerCase()];
  return window.pictures.picture ? ["", "published"] : ["…", "coming"];
}

/** Declared and measured rates, and what was lost. */
function drawRates(ingest, streams) {
  const gaps = (Array.isArray(ingest.gaps) ? ingest.gaps : []).slice(-8).map(record)
    .map(({ lost, length }) => `${count(lost)} samples, ${milliseconds(1000 * length)}`).join("\n");
  const bad = (value) => (value > 0 ? "bad" : "");
  facts($("rates"), [
    ...[["", ingest], ...streams].flatMap(([name, each]) => rate(name, each)),
    ...streams.filter(([, { state }]) => state === "lost").map(([name]) => [name, "lost", "", "bad"]),
    ["Samples", count(ingest.samples)],
    ["Lost", count(ingest.lost), streams.map(([name, { lost }]) => `${name}: ${count(lost)}`).join("\n"), bad(ingest.lost)],
    ["Gaps", count(ingest.gap_count), gaps, bad(ingest.gap_count)],
  ]);
}

/** Rows of a stream's rate, where it is measured: how far from the declared one, and the drift of its clock. */
function rate(name, { measured_hz: measured, declared_hz: declared, drift_ppm: drift }) {
  if (!Number.isFinite(measured)) return [];
  const off = Number.isFinite(drift) ? Math.abs(drift) > 20000 : declared > 0 && Math.abs(measured / declared - 1) > 0.02;
  const of = Number.isFinite(declared) ? `${hertz(declared)} Hz` : "";
  const clock = Number.isFinite(drift) ? `${drift > 0 ? "+" : ""}${Math.round(drift)} ppm` : "";
  const bad = off ? "bad" : "";
  if (name) return [[name, [`${hertz(measured)} Hz`, of && `declared ${of}`, clock].filter(Boolean).join(", "), "", bad]];
  return [["Measured", `${hertz(measured)} Hz`, "", bad], ...(of ? [["Declared", of]] : []), ...(clock ? [["Clock", clock]] : [])];
}

const hertz = (value) => Number(value.toFixed(2));
