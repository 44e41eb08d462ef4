// Two charts of the last ten minutes, drawn by uPlot.
import { $, number, seconds } from "./page_words.js";

const SPAN = 600;
const HEIGHT = 168;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(width, scales, series, axes) {
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 16, 0, 0],
    scales: { x: { time: false, range: () => [-SPAN, 0] }, ...scales },
    axes: [
      { ...axis, size: 24, splits: () => [-600, -480, -360, -240, -120, 0], values: (_, at) => at.map((s) => (s ? `${s / 60} min` : "now")) },
      ...axes.map((own) => ({ ...axis, size: 46, ...own })),
    ],
    series: [{}, ...series],
  };
}

class Chart {
  constructor(id, make) {
    this.box = $(id);
    this.make = make;
    this.data = null;
    new ResizeObserver(() => this.plot?.setSize({ width: this.box.clientWidth, height: HEIGHT })).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data && this.box.clientWidth) this.plot = new uPlot(this.make(this.box.clientWidth), this.data, this.box);
  }

  show(data, label) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.rebuild();
    this.box.setAttribute("aria-label", label);
  }
}

// Tokens of each second: answers on the left scale, prefill, which is many times as fast, on the right one.
export class Speed {
  constructor() {
    this.ages = Array.from({ length: SPAN }, (_, place) => place - SPAN + 1);
    const line = (name, scale, fill) => ({ scale, stroke: colour(name), width: 1.5, points: { show: false }, fill: fill ? `${colour(name)}22` : undefined });
    const range = (_, low, high) => [0, Math.max(10, high * 1.1)];
    const axis = (name, scale, more) => ({ scale, stroke: colour(name), values: (_, at) => at.map(number), ...more });
    this.chart = new Chart("speed", (width) => options(width,
      { y: { range }, right: { range } },
      [line("--a", "y", true), line("--b", "right", false)],
      [axis("--a", "y", {}), axis("--b", "right", { side: 1, grid: { show: false } })]));
  }

  begin(decoded, prefilled) {
    this.decoded = [...Array(Math.max(0, SPAN - decoded.length)).fill(0), ...decoded].slice(-SPAN);
    this.prefilled = [...Array(Math.max(0, SPAN - prefilled.length)).fill(0), ...prefilled].slice(-SPAN);
  }

  add(decoded, prefilled) {
    this.decoded.push(decoded);
    this.prefilled.push(prefilled);
    this.decoded.shift();
    this.prefilled.shift();
    this.chart.show([this.ages, this.decoded, this.prefilled],
      `Chart of tokens per second in the last ten minutes: now ${decoded} of answers and ${prefilled} of prefill; at most ${Math.max(...this.decoded)} and ${Math.max(...this.prefilled)}.`);
  }
}

// A point for each request; logarithmic, for a cold prompt takes a hundred times as long as a warm one.
export class FirstToken {
  constructor() {
    const dots = (name, filled) => ({
      stroke: colour(name),
      paths: () => null,
      points: { show: true, size: filled ? 7 : 6, width: filled ? 0 : 2, stroke: colour(name), fill: filled ? colour(name) : colour("--card") },
    });
    const range = (_, low, high) => [Math.min(0.01, 10 ** Math.floor(Math.log10(low || 1))), Math.max(10, 10 ** Math.ceil(Math.log10(high || 1)))];
    this.points = [];
    const decades = (_u, _axis, low, high) => [0.001, 0.01, 0.1, 1, 10, 100, 1000].filter((at) => at >= low && at <= high);
    this.chart = new Chart("first", (width) => options(width,
      { y: { distr: 3, range } },
      [dots("--c", true), dots("--d", false)],
      [{ splits: decades, filter: (_, at) => at, values: (_, at) => at.map((value) => `${value} s`) }]));
  }

  begin() {
    this.points = [];
  }

  add(records, now) {
    for (const record of records) {
      if (record.first_token !== null) {
        this.points.push({ at: record.at - record.seconds + record.first_token, took: Math.max(record.first_token, 0.001), cached: record.cached_tokens * 2 >= record.prompt_tokens });
      }
    }
    this.points = this.points.filter((point) => now - point.at < SPAN).sort((one, other) => one.at - other.at);
    const pick = (cached) => this.points.map((point) => (point.cached === cached ? point.took : null));
    const all = this.points.map((point) => point.took).sort((one, other) => one - other);
    this.chart.show([this.points.map((point) => point.at - now), pick(true), pick(false)],
      all.length ? `Chart of the time to first token of ${all.length} requests in the last ten minutes: half took at most ${seconds(all[Math.floor((all.length - 1) / 2)])}, the longest ${seconds(all.at(-1))}.` : "Chart of the time to first token: no requests in the last ten minutes.");
  }
}
