// How far the presentation on this machine is: trial, block, attention and dropped frames.

import { text } from "./facts.js";
import { fetchExperiment } from "./wire.js";

const EVERY_MS = 1000;
const element = () => document.getElementById("experiment");

/** Put what the presenter's table of trials says into a line. */
export function words({ set, trial, trials, block, blocks, hits, misses, false_alarms: alarms, dropped }) {
  const attention = hits === undefined ? "" : `; ${hits} hits, ${misses} misses, ${alarms} false alarms`;
  const frames = dropped ? `; ${dropped} frames dropped` : "";
  return `${set}: trial ${trial} of ${trials}, block ${block} of ${blocks}${attention}${frames}`;
}

async function show() {
  const found = await fetchExperiment().catch(() => null);
  element().hidden = !found;
  text(element(), found ? words(found) : "");
}

/** Ask once a second while `wanted()` says so. */
export function followExperiment(wanted) {
  let asking = false;
  setInterval(async () => {
    if (asking) return;
    asking = true;
    if (wanted()) await show();
    else element().hidden = true;
    asking = false;
  }, EVERY_MS);
}
