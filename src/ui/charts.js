// Four charts of the last five minutes, drawn by hand on canvas.

import { count, element, micros, setText } from "./format.js";

const SPAN_MS = 300_000;
const STILL_MS = 15_000;
const CHARTS = [
  { id: "speed", title: "Tokens/s", format: count, lines: [{ key: "speed", label: "generated" }] },
  { id: "load", title: "Requests", format: count, lines: [{ key: "running", label: "running" }, { key: "waiting", label: "waiting" }] },
  { id: "ttft", title: "First token", format: micros, lines: [{ key: "ttft50", label: "p50" }, { key: "ttft99", label: "p99" }] },
  { id: "gap", title: "Token gap", format: micros, lines: [{ key: "gap50", label: "p50" }, { key: "gap99", label: "p99" }] },
];

const samples = [];
let last = null;

export function build(parent) {
  for (const chart of CHARTS) {
    const card = element("figure", "chart");
    const head = element("figcaption", "chart-head");
    head.append(element("span", "chart-title", chart.title));
    const values = element("span", "chart-values");
    for (const [index, line] of chart.lines.entries()) {
      const value = element("span", `series series-${index}`);
      line.node = element("b", "", "–");
      value.append(line.node, ` ${line.label}`);
      values.append(value);
    }
    head.append(values);
    chart.canvas = element("canvas");
    chart.canvas.setAttribute("role", "img");
    chart.canvas.setAttribute("aria-label", `${chart.title}, last five minutes`);
    chart.canvas.id = `chart-${chart.id}`;
    card.append(head, chart.canvas);
    parent.append(card);
    new ResizeObserver(() => draw(chart)).observe(chart.canvas);
  }
}

/// Takes an `/actors` document; counters of a server that started anew begin anew.
export function add(document) {
  const { totals, captured_at_ms: at, uptime_ms: uptime } = document;
  const same = last !== null && uptime >= last.uptime && at > last.at;
  const made = same ? totals.generated_tokens - last.tokens : 0;
  samples.push({
    at,
    speed: same && made >= 0 ? (made * 1000) / (at - last.at) : null,
    running: totals.requests_running,
    waiting: totals.requests_waiting,
    ttft50: totals.ttft_p50_us,
    ttft99: totals.ttft_p99_us,
    gap50: totals.token_gap_p50_us,
    gap99: totals.token_gap_p99_us,
  });
  last = { at, uptime, tokens: totals.generated_tokens };
  while (samples.length > 0 && samples[0].at < at - SPAN_MS) samples.shift();
  CHARTS.forEach(draw);
}

export function redraw() {
  CHARTS.forEach(draw);
}

function draw(chart) {
  const newest = samples.at(-1);
  for (const line of chart.lines) setText(line.node, chart.format(newest?.[line.key]));
  const { canvas } = chart;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (width === 0 || height === 0) return;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const colours = getComputedStyle(document.documentElement);
  const top = ceiling(Math.max(0, ...samples.flatMap((sample) => chart.lines.map((line) => sample[line.key] ?? 0))));
  grid(pen, { width, height, top, colours, format: chart.format });
  const area = { width, height, top, end: newest?.at ?? 0 };
  for (const [index, line] of [...chart.lines.entries()].reverse()) {
    pen.strokeStyle = pen.fillStyle = colours.getPropertyValue(index === 0 ? "--accent" : "--second");
    curve(pen, line.key, area, index === 0);
  }
}

/// The next 1, 2 or 5 times a power of ten: the scale changes seldom.
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function grid(pen, { width, height, top, colours, format }) {
  pen.lineWidth = 1;
  pen.strokeStyle = colours.getPropertyValue("--line");
  for (let minute = 1; minute < 5; minute += 1) {
    const x = Math.round((width * minute) / 5) + 0.5;
    pen.beginPath();
    pen.moveTo(x, 14);
    pen.lineTo(x, height);
    pen.stroke();
  }
  pen.beginPath();
  pen.moveTo(0, height - 0.5);
  pen.lineTo(width, height - 0.5);
  pen.stroke();
  pen.fillStyle = colours.getPropertyValue("--faint");
  pen.font = "10px system-ui, sans-serif";
  pen.fillText(format(top), 0, 10);
  const span = "5 min";
  pen.fillText(span, width - pen.measureText(span).width, 10);
}

function curve(pen, key, { width, height, top, end }, filled) {
  const place = ({ at, [key]: value }) => [width - ((end - at) / SPAN_MS) * width, height - 1 - (value / top) * (height - 18)];
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  for (const run of runs(key)) {
    const points = run.map(place);
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x, y));
    if (points.length === 1) pen.arc(points[0][0] - 1, points[0][1], 1, 0, 7);
    pen.stroke();
    if (!filled) continue;
    pen.lineTo(points.at(-1)[0], height);
    pen.lineTo(points[0][0], height);
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = 1;
  }
}

/// Unbroken runs of samples with a value; a lost connection is a gap, not a straight line.
function runs(key) {
  const found = [];
  let before = null;
  for (const sample of samples) {
    if (sample[key] === null || sample[key] === undefined) {
      before = null;
      continue;
    }
    if (before === null || sample.at - before > STILL_MS) found.push([]);
    found.at(-1).push(sample);
    before = sample.at;
  }
  return found;
}
