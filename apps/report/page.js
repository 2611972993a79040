// The code of the report page. It reads the JSON in #data, builds one section per group of runs, and draws with d3.
// Order of this file: small tools, what the quantities mean, charts, frames around charts and tables, the sections of
// a group, the start. Everything a figure shows is computed here from the per-seed values, except the summaries and
// the paired tests, which stand in the data.
"use strict";

// ---------------------------------------------------------------------------------------------- small tools

/** An element: el("p", {class: "note"}, "text", child, ...). Functions become listeners, null children are left out. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

const finite = (v) => typeof v === "number" && Number.isFinite(v);
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const range = (n) => Array.from({length: n}, (_, i) => i);
const list = (v) => (Array.isArray(v) ? v : []);
const most = (values, start = 0) => values.reduce((a, b) => Math.max(a, b), start);
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const shorten = (text, length = 24) => (text.length > length ? text.slice(0, length - 1) + "\u2026" : text);
const together = (words) =>
  words.length < 2 ? words.join("") : words.slice(0, -1).join(", ") + " and " + words[words.length - 1];

/** [smallest, largest] of the finite numbers; null when there is none. */
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (finite(v)) low = Math.min(low, v), high = Math.max(high, v);
  return low <= high ? [low, high] : null;
}

/** Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom; beyond the list a series in 1/df. */
const STUDENT = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
  2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086
];
const student = (df) => (df <= STUDENT.length ? STUDENT[df - 1] : 1.96 + 2.372 / df + 2.8 / (df * df));

/** Mean, sample deviation and half width of the 95% interval; the last two are null for fewer than two values. */
function spread(values) {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return {n, mean: n ? mean : null, deviation: null, half: null};
  const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1));
  return {n, mean, deviation, half: student(n - 1) * deviation / Math.sqrt(n)};
}

/** Centred moving average over `width` neighbouring points (fewer at the ends), by differences of a running sum. */
function smoothed(points, width) {
  if (width < 2) return points;
  const sums = [0];
  for (const p of points) sums.push(sums[sums.length - 1] + p.y);
  const half = Math.floor(width / 2);
  return points.map((p, i) => {
    const from = Math.max(0, i - half), to = Math.min(points.length, i + half + 1);
    return {x: p.x, y: (sums[to] - sums[from]) / (to - from)};
  });
}

/** Keeps the lowest and the highest point of each of `columns` buckets: the same picture from far fewer points. */
function thinned(points, columns) {
  columns = Math.max(1, Math.floor(columns));
  if (points.length <= 2 * columns) return points;
  const kept = [];
  for (let c = 0; c < columns; ++c) {
    const from = Math.floor(c * points.length / columns), to = Math.floor((c + 1) * points.length / columns);
    let low = from, high = from;
    for (let i = from; i < to; ++i) {
      if (points[i].y < points[low].y) low = i;
      if (points[i].y > points[high].y) high = i;
    }
    kept.push(points[Math.min(low, high)]);
    if (low !== high) kept.push(points[Math.max(low, high)]);
  }
  return kept;
}

// Numbers. A missing one is a dash; a minus is a real minus, and none stands before zero.
const minus = (text) => (Number(text) === 0 ? text.replace("-", "") : text.replace(/^-/, "\u2212"));
const guarded = (format) => (v) => (finite(v) ? minus(format(v)) : "\u2013");
const percent = guarded((v) => (100 * v).toFixed(1) + "%");
const percentBare = guarded((v) => (100 * v).toFixed(1));
const points = guarded((v) => (v > 0 ? "+" : "") + (100 * v).toFixed(1));
const number = guarded((v) => {
  const size = Math.abs(v);
  if (v === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return v.toExponential(2).replace("e+", "e");
  return size >= 1000 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(3)));
});
const whole = guarded((v) => v.toLocaleString("en"));
const probability = guarded((v) => (v < 0.001 ? "< 0.001" : v.toFixed(3)));
const duration = guarded((s) => {
  if (s < 100) return s.toFixed(1) + " s";
  if (s < 5400) return `${Math.floor(s / 60)} min ${String(Math.round(s % 60)).padStart(2, "0")} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.round(s % 3600 / 60)).padStart(2, "0")} min`;
});
const bytes = guarded((b) => (b >= 2 ** 30 ? (b / 2 ** 30).toFixed(2) + " GiB" : (b / 2 ** 20).toFixed(1) + " MiB"));
const ratio = guarded((v) => v.toFixed(2) + "\u00d7");

// ---------------------------------------------------------------------------------------------- what things mean

/** Per-task measures, in the order of the selector. Keys that are not here are shown under their own name. */
const MEASURES = {
  task_accuracy: {label: "Accuracy on the task just learned", share: true,
    help: "Test accuracy on each task right after learning it: what falls when plasticity is lost."},
  online_accuracy: {label: "Online accuracy", share: true,
    help: "Accuracy on each training image before the update from it, averaged over the task."},
  train_accuracy: {label: "Training accuracy", share: true, help: "Accuracy on the training images of the task."},
  area_under_curve: {label: "Area under the learning curve", share: true,
    help: "Mean height of the test-accuracy curve within the task: how fast a task is learned, not only how well."},
  gap: {label: "Gap to a fresh network", share: true, signed: true,
    help: "Accuracy of a freshly initialised network on the task minus accuracy of this one: above zero, the stream "
      + "has cost ability to learn."},
  train_loss: {label: "Training loss", help: "Mean training loss of the task."},
  dip_depth: {label: "Dip at the shift", share: true, signed: true,
    help: "Mean online accuracy of the 50 updates before the domain shifts minus the least mean of 20 in a row after it."},
  recovery_steps: {label: "Updates to recover",
    help: "Updates until online accuracy is back at 95% of its level before the shift; -1: not within the task."},
};

/** Summaries over a whole stream. better: +1 when more is better, -1 when less is, 0 when neither. */
const SUMMARIES = {
  aat: {label: "AAT", share: true, better: 1,
    help: "average accuracy over tasks: mean over all tasks of the test accuracy right after learning each"},
  last_quarter: {label: "Last quarter", share: true, better: 1, help: "the same over the last quarter of the tasks"},
  online: {label: "Online", share: true, better: 1, help: "online accuracy, mean over tasks"},
  train: {label: "Training", share: true, better: 1, help: "training accuracy in a task's last epoch, mean over tasks"},
  area_under_curve: {label: "Area", share: true, better: 1,
    help: "mean height of the test accuracy curve within a task, mean over tasks"},
  slope: {label: "Slope per 10 tasks", share: true, signed: true, better: 1, scale: 10,
    help: "least-squares slope of accuracy over the task number, in percentage points"},
  gap: {label: "Gap to fresh", share: true, signed: true, better: -1,
    help: "accuracy of a fresh network minus accuracy of this one, mean over tasks"},
  time_ratio: {label: "Time ratio", better: -1,
    help: "steps needed to reach 90% of a fresh network's accuracy, relative to the fresh network"},
  dip_depth: {label: "Dip at a shift", share: true, better: -1,
    help: "online accuracy before a shift of the domain minus its lowest point after it, mean over shifts"},
  forgetting: {label: "Forgetting", share: true, better: -1,
    help: "best earlier accuracy on a task minus accuracy on it at the end, mean over tasks"},
  backward_transfer: {label: "Backward transfer", share: true, signed: true, better: 1,
    help: "accuracy on a task at the end minus accuracy right after learning it, mean over tasks"},
  forward_transfer: {label: "Forward transfer", share: true, signed: true, better: 1,
    help: "accuracy on a task before learning it minus that of an untrained network, mean over tasks"},
};
const COSTS = ["images_per_second", "wall_seconds", "peak_bytes"];

/** Which part of the network a diagnosis key speaks of: its first word. */
const PARTS = {tokens: "Tokens", attention: "Attention", units: "Hidden units", features: "Features", weight: "Weights",
               gradient: "Gradients", circuit: "Head circuits"};
const MODULES = {q: "queries", k: "keys", v: "values", out: "attention output", fc1: "MLP in", fc2: "MLP out"};

/** What a diagnosis key's last word measures; "part.word" goes before "word". share: shown in percent. */
const QUANTITIES = {
  effective_rank: {
    label: "effective rank",
    help: "Number of directions in real use: the exponential of the entropy of " +
      "the normalised singular values. It falls when a few directions take over."
  },
  stable_rank: {
    label: "stable rank",
    help: "Squared Frobenius norm over squared largest singular value: near 1 when " +
      "one direction dominates."
  },
  "tokens.effective_rank": {
    label: "effective rank",
    help: "Number of directions that a block's output tokens really " +
      "use (exponential of the entropy of their normalised singular values); it falls when representations collapse."
  },
  "features.effective_rank": {
    label: "effective rank",
    help: "Number of directions in real use among the features that " +
      "the classifier sees; it falls when representations collapse."
  },
  "circuit.effective_rank": {
    label: "effective rank",
    help: "Number of directions in real use of the product of a head's two matrices: of queries and keys (qk: what it " +
      "compares), of values and output (ov: what it moves). At most the width of a head; mean over heads."
  },
  "units.active": {
    label: "active share",
    share: true,
    help: "Share of entries of the hidden layer through which a " +
      "gradient can pass (slope of GELU above 0.01 in size)."
  },
  "units.dormant": {
    label: "dormant share",
    share: true,
    help: "Share of hidden units whose mean output is below 2.5% of their layer's."
  },
  "units.dead": {label: "dead share", share: true, help: "Share of hidden units that stay off for every image probed."},
  "units.alive":
    {label: "alive share", share: true, help: "Share of hidden units that are on for at least some images."},
  "attention.entropy": {
    label: "entropy",
    help: "How widely a head spreads its attention: 0 means one token only, 1 means all tokens alike " +
      "(entropy over its largest possible value)."
  },
  "attention.distance": {
    label: "distance",
    help: "Mean distance between the patch that asks and the patches it " +
      "attends to."
  },
  "attention.class_self": {label: "class token to itself", share: true,
    help: "How much of its attention the class token gives to itself: what it takes from no patch."},
  "attention.head_similarity": {label: "similarity of heads",
    help: "Mean cosine between the maps of two heads, what both have of uniform attention taken out: 1 means copies."},
  "attention.largest_logit": {label: "largest logit",
    help: "Largest scaled product of a query and a key. It grows before attention collapses onto single tokens."},
  "attention.drift_first": {label: "drift since the first task",
    help: "Jensen-Shannon divergence of the maps of the same images from those after the first task: at most 0.69."},
  "attention.drift_task": {label: "drift over one task",
    help: "Jensen-Shannon divergence of the maps of the same images from those after the task before: at most 0.69."},
  "tokens.energy_rank": {label: "directions with 99% of the energy",
    help: "How many singular directions of the block's output tokens hold 99% of their energy."},
  "tokens.cka_first": {label: "likeness to the first task",
    help: "Unbiased CKA between the features of the same images now and after the first task: 1 means the same."},
  "tokens.cka_task": {label: "likeness to the task before",
    help: "Unbiased CKA between the features of the same images now and after the task before: 1 means the same."},
  "units.positive": {label: "positive share", share: true,
    help: "Share of entries of the hidden layer before its GELU that are above zero."},
  "units.magnitude": {label: "share that says something", share: true,
    help: "Share of entries of the hidden layer whose output is above 0.01 in size."},
  "features.srank": {label: "directions with 99% of the singular values",
    help: "How many singular directions of what the classifier sees hold 99% of the sum of singular values."},
  "features.norm": {label: "length", help: "Root mean square length of what the classifier sees."},
  diversity: {label: "diversity",
    help: "Sum of the squared gradients over the square of their sum, of the last 8: 1/8 when all agree, 1 when they " +
      "are orthogonal, more when they cancel."},
  noise_ratio: {label: "noise ratio",
    help: "Variance of single gradients over the squared mean gradient: how many batches it takes to see the signal."},
  jump: {label: "jump at the boundary",
    help: "Mean size of the first 8 gradients of a task over that of the last one of the task before."},
  norm: {label: "norm", help: "Frobenius norm. Weights that grow without end make each update relatively smaller."},
  drift: {label: "drift", help: "Distance moved since the task began, relative to the norm it had then."},
  from_start: {label: "distance from the start", help: "Distance from the initial values, relative to their norm."},
  update_ratio: {
    label: "update ratio",
    help: "Size of one update relative to the size of what it changes: near zero, " +
      "the layer has stopped to move."
  },
  spectral_norm: {label: "spectral norm", help: "Largest singular value."},
  condition: {label: "condition number", help: "Largest over smallest singular value."},
  cosine: {
    label: "cosine",
    help: "Mean cosine between neighbouring gradients, of the last 8: 1 is the same direction, below 0 they work " +
      "against each other."
  },
  top_share: {
    label: "share of the top direction",
    share: true,
    help: "Share of the energy that lies in the largest " +
      "singular direction."
  },
};

const worded = (key) => key.replace(/[._]/g, " ");

/** Label, explanation and number format of a diagnosis key, known or not. */
function describe(key) {
  const words = key.split(".");
  const last = words[words.length - 1];
  const known = QUANTITIES[`${words[0]}.${last}`] || QUANTITIES[last];
  const first = worded(words[0]);
  const part = PARTS[words[0]] || first.charAt(0).toUpperCase() + first.slice(1);
  const module = words.length > 2 ? ` of ${words.slice(1, -1).join(" ")}` : "";
  const label = words.length > 1 ? `${part}${module}: ${known ? known.label : worded(last)}` : part;
  const help = known ? known.help : `Recorded by the run as \u201c${key}\u201d.`;
  return {key, label, part: part + module, short: known ? known.label : worded(last), help,
          share: Boolean(known && known.share), format: known && known.share ? percent : number};
}

// ---------------------------------------------------------------------------------------------- drawing

const COLOURS = 10;  // --c0 ... of the style sheet; later methods use them again, dashed
const DASHES = [null, "6 3", "2 2.5", "9 3 2 3"];
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const tip = document.getElementById("tip");

const measureText = (() => {
  const context = document.createElement("canvas").getContext("2d");
  return (text, size = 12) => {
    context.font = `${size}px ${FONT}`;
    return context.measureText(text).width;
  };
})();

/** Colours stand as variables in the drawing, so that dark mode and print need no second drawing. */
function newSvg(width, height, title) {
  const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`)
    .attr("width", width).attr("height", height).attr("role", "img").attr("font-family", FONT).attr("font-size", 12);
  svg.append("title").text(title);
  return svg;
}

/** Appends a shape with these attributes and styles; a null leaves one out. */
function put(g, name, attributes = {}, styles = {}) {
  const made = g.append(name);
  for (const [key, value] of Object.entries(attributes)) made.attr(key, value);
  for (const [key, value] of Object.entries(styles)) made.style(key, value);
  return made;
}

function text(g, x, y, content, {anchor = "start", colour = "var(--soft)", size = 12, weight = 400} = {}) {
  return put(g, "text", {x, y, "text-anchor": anchor, "font-size": size, "font-weight": weight}, {fill: colour})
    .text(content);
}

/** Horizontal grid with labels at the left, or ticks below; d3 draws them, this gives them the page's looks. */
function axis(g, made, colour = "var(--grid)") {
  g.call(made);
  g.attr("font-family", null).attr("font-size", 11.5);
  g.select(".domain").remove();
  g.selectAll(".tick line").style("stroke", colour);
  g.selectAll(".tick text").style("fill", "var(--soft)");
  return g;
}

function taskTicks(scale, count) {
  const [low, high] = scale.domain();
  const whole = scale.ticks(count).filter((t) => Number.isInteger(t) && (t >= 1 || low === 0));
  return whole.length ? whole : [Math.round((low + high) / 2)];
}

function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 16 + box.width > innerWidth ? event.clientX - 14 - box.width : event.clientX + 16;
  tip.style.left = clamp(x, 4, Math.max(4, innerWidth - box.width - 4)) + "px";
  tip.style.top = clamp(event.clientY + 14, 4, Math.max(4, innerHeight - box.height - 4)) + "px";
}
const hideTip = () => { tip.hidden = true; };

const nameCell = (m) => [swatch(m.colour), el("span", {title: m.name}, shorten(m.name, 40))];
const swatch = (colour) => el("span", {class: "dot", style: `background: ${colour}`});

/** Moves labels apart so that none covers another, from their wished heights, within [top, bottom]. */
function spaced(labels, gap, top, bottom) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((l, i) => { l.y = Math.max(l.y, i ? labels[i - 1].y + gap : top); });
  for (let i = labels.length - 1, limit = bottom; i >= 0; --i, limit = labels[i + 1].y - gap) {
    labels[i].y = Math.min(labels[i].y, limit);
  }
  return labels;
}

/** The domain of y: all of the lines, and of the bands as much as leaves the lines readable (two seeds give intervals
    that are many times wider than all differences). */
function lineDomain(o) {
  const core = [], bands = [];
  for (const s of o.series) {
    for (const p of s.line) core.push(p.y);
    for (const thin of s.thin || []) for (const p of thin) core.push(p.y);
    for (const p of s.band || []) bands.push(p.low, p.high);
  }
  const [turn, back] = o.y.log ? [Math.log, Math.exp] : [(v) => v, (v) => v];
  const usable = (values) => extent((o.y.log ? values.filter((v) => v > 0) : values).map(turn));
  const found = usable(core);
  if (!found) return o.y.log ? [0.1, 1] : [0, 1];
  const outer = usable(bands) || found, flat = o.y.share ? 0.01 : Math.abs(found[0]) * 0.05 || 0.5;
  const room = 0.6 * (found[1] - found[0]) || flat;
  let low = Math.min(found[0], Math.max(outer[0], found[0] - room));
  let high = Math.max(found[1], Math.min(outer[1], found[1] + room));
  for (const v of o.y.log ? [] : o.y.include || []) low = Math.min(low, v), high = Math.max(high, v);
  const pad = high > low ? (high - low) * 0.05 : flat;
  low = o.y.zero && !o.y.log && low >= 0 ? 0 : low - pad, high += pad;
  const bounded = o.y.share && !o.y.log && found[0] >= 0 && found[1] <= 1;
  return bounded ? [Math.max(0, low), Math.min(1, high)] : [back(low), back(high)];
}

/**
 * Lines with bands. o.series: [{key, name, colour, dash, line, band, thin, ends, faint}], points {x, y}, bands {x, low,
 * high}; o.x: {domain, label, name}; o.y: {label, format, log, share, zero, include}; o.lines: horizontal references
 * [{y, label}]; o.cursor: a vertical line; o.labels: names at the ends of lines where there is room.
 */
function drawLines(g, width, height, o) {
  const named = o.labels && width >= 560;
  const widest = most(o.series.map((s) => measureText(shorten(s.name))));
  const margin = {top: o.title ? 40 : 24, right: named ? 18 + widest : 16, bottom: o.x.label ? 40 : 24, left: 48};
  const [left, right, top, bottom] = [margin.left, width - margin.right, margin.top, height - margin.bottom];
  const x = d3.scaleLinear().domain(o.x.domain).range([left, right]);
  const y = (o.y.log ? d3.scaleLog() : d3.scaleLinear()).domain(lineDomain(o)).range([bottom, top]);

  const ticks = Math.max(3, Math.round((bottom - top) / 55));
  const left_axis = d3.axisLeft(y).tickSize(-(right - left)).tickPadding(8);
  axis(
    put(g, "g", {transform: `translate(${left},0)`}),
    o.y.log ? left_axis.tickValues(logTicks(y, ticks)).tickFormat(o.y.format) :
              left_axis.ticks(ticks).tickFormat(tickFormat(y, ticks, o.y)));
  axis(
    put(g, "g", {transform: `translate(0,${bottom})`}),
    d3.axisBottom(x)
      .tickValues(taskTicks(x, clamp(Math.round((right - left) / 70), 2, 10)))
      .tickFormat(d3.format("d"))
      .tickSize(4)
      .tickPadding(5),
    "var(--soft)");
  put(g, "path", {d: `M${left},${bottom}H${right}`}, {stroke: "var(--soft)"});
  if (o.title) text(g, left, 13, o.title, {colour: o.title_colour || "var(--ink)", weight: 600, size: 12.5});
  text(g, o.title ? left : 0, o.title ? 29 : 11, o.y.label, {size: 11.5});
  if (o.x.label) text(g, right, height - 4, o.x.label, {anchor: "end", size: 11.5});

  const [low, high] = y.domain();
  const references = (o.lines || []).filter((r) => r.y >= low && r.y <= high);
  for (const r of references) {
    put(
      g, "path", {"data-reference": "", d: `M${left},${y(r.y)}H${right}`, "stroke-dasharray": "3 3"},
      {stroke: "var(--soft)"});
  }

  const columns = Math.max(50, right - left);
  const line = d3.line().x((p) => x(p.x)).y((p) => y(p.y)).defined((p) => !o.y.log || p.y > 0);
  const area = d3.area().x((p) => x(p.x)).y0((p) => y(clamp(p.low, low, high))).y1((p) => y(clamp(p.high, low, high)));
  const long = most(o.series.map((s) => s.line.length)) > 300;
  for (const s of o.series) {
    const layer = put(g, "g", {class: "series", "data-method": s.key});
    if (s.band && s.band.length) {
      const step = Math.ceil(s.band.length / columns);
      put(
        layer, "path", {class: "band", d: area(s.band.filter((_, i) => i % step === 0)), "fill-opacity": 0.14},
        {fill: s.colour});
    }
    for (const thin of s.thin || []) {
      put(
        layer, "path", {
          class: "thin",
          d: line(thinned(thin, columns)),
          fill: "none",
          "stroke-width": long ? 0.5 : 0.9,
          "stroke-opacity": 0.45
        },
        {stroke: s.colour});
    }
    put(
      layer, "path", {
        class: "line",
        d: line(thinned(s.line, columns)),
        fill: "none",
        "stroke-width": s.faint ? 1 :
          long                  ? 1.3 :
                                  1.8,
        "stroke-linejoin": "round",
        "stroke-dasharray": s.faint ? "1.5 3" : s.dash,
        "stroke-linecap": s.faint ? "round" : null
      },
      {stroke: s.colour});
    if (s.line.length <= 30 && !s.faint && (right - left) / s.line.length > 9) {
      layer.selectAll(".mark").data(s.line.filter(line.defined())).enter().append("circle").attr("class", "mark")
        .attr("r", 2.3).attr("cx", (p) => x(p.x)).attr("cy", (p) => y(p.y)).style("fill", s.colour);
    }
    for (const p of s.ends || []) {
      const [cx, cy] = [x(p.x), y(clamp(p.y, low, high))];
      put(layer, "path", {d: `M${cx - 4},${cy - 4}l8,8m0,-8l-8,8`, "stroke-width": 2}, {stroke: s.colour});
    }
  }
  for (const r of references) halo(text(g, right - 4, y(r.y) - 5, r.label, {size: 11.5, anchor: "end"}));
  if (named) endLabels(g, o.series, x, y, right, top, bottom);
  if (o.cursor !== undefined) {
    put(
      g, "path", {class: "cursor", d: `M${x(o.cursor)},${top}V${bottom}`, "stroke-width": 1, "stroke-opacity": 0.6},
      {stroke: "var(--ink)"});
  }
  if (!o.still) hover(g, o, x, y, {left, right, top, bottom});
}

/** Powers of ten (every other one, or fewer, where they are many); on less than two decades 1, 2, 5 as well. */
function logTicks(scale, count) {
  const [low, high] = scale.domain();
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first) / count));
  const steps = high / low < 100 ? [1, 2, 5] : [1];
  return range(last - first + 1).filter((i) => i % step === 0)
    .flatMap((i) => steps.map((s) => s * 10 ** (first + i))).filter((v) => v >= low && v <= high);
}

/** Ticks of shares stand in percent, with as many decimals as their distance needs. */
function tickFormat(scale, count, y) {
  if (!y.share) return y.format;
  const [a, b] = scale.ticks(count);
  const digits = clamp(Math.ceil(-Math.log10(100 * (b - a)) - 1e-9), 0, 4);
  return (v) => minus((100 * v).toFixed(digits)) + "%";
}

const halo = (t) => t.attr("paint-order", "stroke").attr("stroke-width", 3).attr("stroke-linejoin", "round")
  .style("stroke", "var(--paper)");

function endLabels(g, series, x, y, right, top, bottom) {
  const labels = series.filter((s) => s.line.length && !s.faint).map((s) => {
    const last = s.line[s.line.length - 1];
    return {s, y: y(last.y), from: [x(last.x), y(last.y)]};
  }).filter((l) => finite(l.y));
  const gap = Math.min(14.5, (bottom - top) / labels.length);
  if (gap < 9) return;  // too many to be read: the chips name them
  for (const l of spaced(labels, gap, top + 4, bottom)) {
    const layer = put(g, "g", {class: "series", "data-method": l.s.key});
    if (l.from[0] > right - 40) {
      put(
        layer, "path",
        {d: `M${l.from[0] + 2},${l.from[1]}L${right + 8},${l.y}`, "stroke-width": 0.8, "stroke-opacity": 0.5},
        {stroke: l.s.colour});
    }
    text(layer, right + 11, l.y + 4, shorten(l.s.name), {colour: l.s.colour, weight: 500});
  }
}

/** The value of a sorted list of points at x, or the nearest one's within half a step. */
function nearest(sorted, x) {
  const i = clamp(d3.bisector((p) => p.x).left(sorted, x), 0, sorted.length - 1);
  return i > 0 && x - sorted[i - 1].x < sorted[i].x - x ? sorted[i - 1] : sorted[i];
}

/** Exact values under the pointer, or under a cursor moved with the arrow keys. */
function hover(g, o, x, y, box) {
  const known =
    [...new Set(o.series.flatMap((s) => s.line.map((p) => p.x)))].sort((a, b) => a - b).map((v) => ({x: v}));
  if (!known.length) return;
  const rule = put(g, "path", {class: "hover", "stroke-width": 1}, {stroke: "var(--soft)"});
  const catcher = put(g, "rect", {
                    class: "hover",
                    x: box.left - 6,
                    y: box.top,
                    width: Math.max(1, box.right - box.left + 12),
                    height: Math.max(1, box.bottom - box.top),
                    fill: "transparent",
                    tabindex: 0,
                    focusable: "true",
                    "aria-label": "Values: move with the left and right arrow keys"
                  }).node();
  const indexes = o.series.map((s) => new Map(s.line.map((p, i) => [p.x, i])));
  let at = null;
  const show = (event, where) => {
    at = where;
    rule.attr("d", `M${x(at)},${box.top}V${box.bottom}`);
    const rows = o.series.map((s, i) => ({s, p: s.line[indexes[i].get(at)], b: (s.band || [])[indexes[i].get(at)]}))
      .filter((r) => r.p).sort((a, b) => b.p.y - a.p.y);
    const band = (b) => (b && b.x === at ? `${o.y.format(b.low)} \u2026 ${o.y.format(b.high)}` : "");
    showTip(event, el("b", {}, o.x.name ? o.x.name(at) : `${o.x.label} ${at}`), el("table", {}, rows.map((r) =>
      el("tr", {}, el("td", {}, swatch(r.s.colour), r.s.name), el("td", {class: "n"}, o.y.format(r.p.y)),
         el("td", {class: "n spread"}, band(r.b))))));
  };
  const hide = () => { rule.attr("d", null), hideTip(); };
  catcher.addEventListener("pointermove", (event) => {
    const area = catcher.getBoundingClientRect();
    const inside = (event.clientX - area.left) / area.width * (box.right - box.left + 12) + box.left - 6;
    show(event, nearest(known, x.invert(inside)).x);
  });
  catcher.addEventListener("pointerleave", hide);
  catcher.addEventListener("blur", hide);
  catcher.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    const i = at === null ? 0 : clamp(known.findIndex((k) => k.x === at) + step, 0, known.length - 1);
    const area = catcher.getBoundingClientRect();
    const scale = area.width / (box.right - box.left + 12);
    show(
      {clientX: area.left + (x(known[i].x) - box.left + 6) * scale, clientY: area.top + area.height / 3}, known[i].x);
  });
}

/** One row per method: interval as a bar, mean as a dot, single seeds as rings (crosses where a seed diverged). */
function drawRows(svg, width, o) {
  const wide = width >= 640;
  const left = Math.min(wide ? 210 : 120, 20 + most(o.rows.map((r) => measureText(r.name))));
  const right = width - (wide ? 170 : 14), step = 32, top = wide ? 22 : 6;
  const bottom = top + step * o.rows.length;
  // Means and seeds always fit; of the intervals as much as leaves these readable.
  const core = extent(o.rows.flatMap((r) => [r.mean, ...r.seeds.map((s) => s.value)])) || [0, 1];
  const all = extent(o.rows.flatMap((r) => [r.low, r.high])) || core,
        room = core[1] - core[0] || Math.abs(core[1]) * 0.05 || 1;
  const found =
    [Math.min(core[0], Math.max(all[0], core[0] - room)), Math.max(core[1], Math.min(all[1], core[1] + room))];
  const pad = (found[1] - found[0]) * 0.06 || room * 0.5;
  const x = d3.scaleLinear().domain([found[0] - pad, found[1] + pad]).range([left, right]).clamp(true);
  axis(put(svg, "g", {transform: `translate(0,${bottom})`}),
       d3.axisBottom(x).ticks(clamp(Math.round((right - left) / 80), 2, 8)).tickFormat(o.tick).tickSize(-(bottom - top))
         .tickPadding(8));
  if (wide) text(svg, width, 12, o.columns, {anchor: "end", size: 11.5});
  o.rows.forEach((r, i) => {
    const y = top + step * (i + 0.5);
    const row = put(svg, "g", {class: "row", "data-method": r.name});
    const letters = Math.floor((left - 16) / 7.2);
    text(
      row, left - 14, y + 4, shorten(r.name, Math.max(8, letters)), {anchor: "end", colour: "var(--ink)", size: 12.5});
    if (finite(r.low) && finite(r.high)) {
      put(
        row, "rect", {
          class: "interval",
          x: x(r.low),
          y: y - 7,
          rx: 3,
          height: 14,
          width: Math.max(1, x(r.high) - x(r.low)),
          "fill-opacity": 0.22
        },
        {fill: r.colour});
    }
    for (const s of r.seeds) {
      if (!finite(s.value)) continue;
      const cx = x(s.value);
      if (s.status === "diverged") {
        put(row, "path", {d: `M${cx - 3.5},${y - 3.5}l7,7m0,-7l-7,7`, "stroke-width": 1.5}, {stroke: r.colour});
      } else {
        put(
          row, "circle",
          {cx, cy: y, r: 3, "stroke-width": 1.1, "stroke-dasharray": s.status === "unfinished" ? "1.5 1.5" : null},
          {stroke: r.colour, fill: "var(--paper)"});
      }
    }
    if (finite(r.mean)) {
      put(row, "circle", {class: "mean", cx: x(r.mean), cy: y, r: 5.2}, {fill: r.colour});
    }
    if (wide) text(row, width, y + 4, r.text, {anchor: "end", colour: "var(--ink)"});
    row.append("title").text(`${r.name}: ${r.text}`);
  });
}
const rowsHeight = (rows, width) => (width >= 640 ? 22 : 6) + 32 * rows + 28;

// A colour scale: viridis, which is perceptually uniform and readable with any colour vision, from a table of 256.
const colourTable = (scheme) => (scheme ? range(256).map((i) => d3.rgb(scheme(i / 255))) : []);
const VIRIDIS = colourTable(d3.interpolateViridis);
const INFERNO = colourTable(d3.interpolateInferno);

/** domain [low, high], log or not, from values; outliers beyond the 1st and 99th percentile clip when they would hide
    all the rest. */
function colourScale(values, log) {
  const sorted = Float64Array.from(values.filter((v) => finite(v) && (!log || v > 0))).sort();
  if (!sorted.length) return {domain: [0, 1], log, clipped: false, at: () => 0};
  const quantile = (q) => sorted[Math.round(q * (sorted.length - 1))];
  const turn = log ? Math.log : (v) => v;
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const [inner_low, inner_high] = [quantile(0.01), quantile(0.99)];
  const clipped = turn(high) - turn(low) > 4 * (turn(inner_high) - turn(inner_low)) && inner_high > inner_low;
  if (clipped) [low, high] = [inner_low, inner_high];
  if (low === high)
    log ? (low /= 2, high *= 2) : (low -= Math.abs(low) / 20 || 0.5, high += Math.abs(high) / 20 || 0.5);
  const at = (v) => clamp(Math.round(255 * (turn(v) - turn(low)) / (turn(high) - turn(low))), 0, 255);
  return {domain: [low, high], log, clipped, at};
}

/** The cells of one heat map as a picture. Columns that share a pixel are averaged. */
function heatImage(columns, rows, width, height, x, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = 2 * Math.max(1, Math.round(width)), canvas.height = 2 * Math.max(1, Math.round(height));
  const context = canvas.getContext("2d");
  const edge = (r) => Math.round(canvas.height * r / rows);
  const merged = new Map();  // first pixel -> [last pixel, columns]
  for (const c of columns) {
    const from = Math.round(2 * x(c.x0)), to = Math.max(from + 1, Math.round(2 * x(c.x1)));
    const seen = merged.get(from);
    seen ? (seen[0] = Math.max(seen[0], to), seen[1].push(c)) : merged.set(from, [to, [c]]);
  }
  for (const [from, [to, members]] of merged) {
    for (let r = 0; r < rows; ++r) {
      const values = members.map((c) => c.values[r]).filter((v) => finite(v) && (!scale.log || v > 0));
      if (!values.length) continue;
      context.fillStyle = VIRIDIS[scale.at(values.reduce((a, b) => a + b, 0) / values.length)];
      context.fillRect(from, edge(rows - 1 - r), to - from, edge(rows - r) - edge(rows - 1 - r));
    }
  }
  return canvas.toDataURL();
}

const heatColumns = (count, width) => clamp(Math.floor(width / 290), 1, Math.min(3, count));
const heatPanelHeight = (o) => 24 + Math.max(70, Math.min(190, 15 * o.rows)) + 26;
const heatTop = (width) => (width >= 640 ? 46 : 58);
const heatHeight = (o, width) =>
  heatTop(width) + Math.ceil(o.panels.length / heatColumns(o.panels.length, width)) * heatPanelHeight(o);

/**
 * Heat maps side by side, one a method, with one colour scale. o: {panels: [{name, colour, columns}], rows, domain,
 * scale, format, share, axes, cursor, row_name(r), x_name(x), pick(x)}; columns as columnsOf() makes them.
 */
function drawHeat(svg, width, o) {
  drawColours(svg, width, o);
  const across = heatColumns(o.panels.length, width), gap = 16;
  const panel_width = (width - gap * (across - 1)) / across, panel_height = heatPanelHeight(o);
  o.panels.forEach((p, i) => {
    const left = (i % across) * (panel_width + gap), top = heatTop(width) + Math.floor(i / across) * panel_height;
    const g = put(svg, "g", {class: "series panel", "data-method": p.name, transform: `translate(${left},${top})`});
    drawHeatPanel(g, panel_width, panel_height, p, o);
  });
}

function drawHeatPanel(g, width, height, p, o) {
  const left = 22, top = 22, w = width - left - 14, h = height - top - 28;
  const x = d3.scaleLinear().domain(o.domain).range([0, w]);
  put(g, "circle", {cx: left + 4, cy: 9, r: 4}, {fill: p.colour});
  text(g, left + 14, 13, shorten(p.name, Math.floor(w / 7.5)), {colour: "var(--ink)", weight: 600, size: 12.5});
  put(g, "rect", {x: left, y: top, width: w, height: h}, {fill: "var(--raised)"});
  const images = o.images || new Map(), name = `${p.name} ${width}`;
  if (!images.has(name)) images.set(name, heatImage(p.columns, o.rows, w, h, x, o.scale));
  put(g, "image", {x: left, y: top, width: w, height: h, preserveAspectRatio: "none", href: images.get(name)});
  const every = Math.ceil(o.rows / Math.max(1, Math.floor(h / 13)));
  range(o.rows).filter((r) => r % every === 0).forEach((r) =>
    text(g, left - 6, top + h * (1 - (r + 0.5) / o.rows) + 4, r + 1, {anchor: "end", size: 11}));
  axis(put(g, "g", {transform: `translate(${left},${top + h})`}),
       d3.axisBottom(x).tickValues(taskTicks(x, clamp(Math.round(w / 55), 2, 8))).tickFormat(d3.format("d")).tickSize(3)
         .tickPadding(4), "var(--soft)");
  if (o.cursor !== undefined) {
    const at = left + clamp(x(o.cursor), 0, w);
    put(
      g, "path", {class: "cursor", d: `M${at},${top - 3}V${top + h + 3}`, "stroke-width": 3}, {stroke: "var(--paper)"});
    put(
      g, "path", {class: "cursor", d: `M${at},${top - 3}V${top + h + 3}`, "stroke-width": 1.2}, {stroke: "var(--ink)"});
  }
  if (o.still || !p.columns.length) return;
  const catcher = put(g, "rect", {class: "hover", x: left, y: top, width: w, height: h, fill: "transparent"}).node();
  const place = (event) => {
    const area = catcher.getBoundingClientRect();
    const column = nearest(p.columns, x.invert((event.clientX - area.left) / area.width * w));
    const row = clamp(Math.floor((1 - (event.clientY - area.top) / area.height) * o.rows), 0, o.rows - 1);
    return {column, row};
  };
  catcher.addEventListener("pointermove", (event) => {
    const {column, row} = place(event);
    showTip(event, el("b", {}, swatch(p.colour), p.name), el("br"), `${o.x_name(column.x)}, ${o.row_name(row)}: `,
            el("b", {}, o.format(column.values[row])));
  });
  catcher.addEventListener("pointerleave", hideTip);
  if (o.pick) catcher.addEventListener("click", (event) => o.pick(place(event).column.x));
}

/** The legend of the colours, at the top right of heat maps; at the left, what the axes are. */
function drawColours(svg, width, o) {
  const wide = width >= 640, w = wide ? 220 : Math.min(200, width - 20), left = wide ? width - w - 20 : 0, stops = 24;
  const id = `ramp-${++drawColours.count}`;
  const ramp = svg.append("defs").append("linearGradient").attr("id", id);
  for (let i = 0; i <= stops; ++i) {
    put(ramp, "stop", {offset: i / stops, "stop-color": VIRIDIS[Math.round(255 * i / stops)]});
  }
  put(svg, "rect", {x: left, y: 2, width: w, height: 9, fill: `url(#${id})`});
  const scale = (o.scale.log ? d3.scaleLog() : d3.scaleLinear()).domain(o.scale.domain).range([left, left + w]);
  const made = d3.axisBottom(scale).tickSize(4).tickPadding(3);
  axis(
    put(svg, "g", {transform: "translate(0,11)"}),
    o.scale.log ? made.tickValues(logTicks(scale, 4)).tickFormat(o.format) :
                  made.ticks(4).tickFormat(o.share ? tickFormat(scale, 4, o) : o.format),
    "var(--soft)");
  text(svg, 0, wide ? 13 : 42, o.axes, {size: 11.5});
}
drawColours.count = 0;

// ---------------------------------------------------------------------------------------------- saving

/** What can be saved, by id: figures give SVG, tables give CSV and JSON. Also what the tests of the page call. */
const saved = {figures: {}, tables: {}};
window.report = {
  figures: () => Object.keys(saved.figures),
  tables: () => Object.keys(saved.tables),
  svg: (id) => saved.figures[id](),
  csv: (id) => csv(saved.tables[id]()),
  json: (id) => JSON.stringify(saved.tables[id](), null, 1),
};

const EXPORT_WIDTH = 880;

/** A drawing as text of its own: light colours for its variables, a white ground, nothing that reacts. */
function svgText(svg) {
  const node = svg.node().cloneNode(true), edge = 12;
  node.querySelectorAll(".hover").forEach((n) => n.remove());
  const [width, height] = ["width", "height"].map((k) => Number(node.getAttribute(k)) + 2 * edge);
  d3.select(node).attr("width", width).attr("height", height).attr("viewBox", [-edge, -edge, width, height].join(" "))
    .insert("rect", ":first-child").attr("x", -edge).attr("y", -edge).attr("width", width).attr("height", height)
    .attr("fill", "#ffffff");
  const light = getComputedStyle(document.getElementById("light"));
  const value = (_, variable) => light.getPropertyValue(variable).trim();
  return new XMLSerializer().serializeToString(node).replace(/var\((--\w+)\)/g, value);
}

function csv(rows) {
  const keys = [...new Set(rows.flatMap((r) => Object.keys(r)))];
  const quoted = (v) => {
    const plain = v === null || v === undefined ? "" : String(v);
    return /[",\n]/.test(plain) ? `"${plain.replace(/"/g, '""')}"` : plain;
  };
  return [keys, ...rows.map((r) => keys.map((k) => r[k]))].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function download(name, blob) {
  const link = el("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const downloadText = (name, type, content) => download(name, new Blob([content], {type}));

/** The drawing as a picture of twice its size, through an image of its SVG. */
function downloadPng(name, content) {
  const image = new Image();
  image.onload = () => {
    const canvas = el("canvas", {width: 2 * image.width, height: 2 * image.height});
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => blob && download(name, blob));
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(content);
}

function saveButtons(what, entries) {
  return el(
    "span", {class: "save"},
    entries.map(
      ([label, action]) => el(
        "button", {type: "button", "aria-label": `Save ${what} as ${label}`, title: `Save as ${label}`, click: action},
        label)));
}

// ---------------------------------------------------------------------------------------------- frames and controls

/**
 * A figure: title, buttons to save, controls, drawing, caption. make(width, still) returns the drawing, or null when
 * there is nothing to show; it is called again whenever something it depends on changes. still: for saving, nothing
 * reacts. bare: without a title, for the only figure of a section. records(): the numbers shown, saved as CSV.
 */
function figure(view, id, {title, make, caption, controls = [], records = null, bare = false}) {
  const name = `g${view.index}-${id}`;
  const plot = el("div", {class: "plot"}), under = el("figcaption");
  saved.figures[name] = () => svgText(make(EXPORT_WIDTH, true) || newSvg(EXPORT_WIDTH, 20, title));
  if (records) saved.tables[name] = records;
  const buttons = saveButtons(title, [
    ["SVG", () => downloadText(`${name}.svg`, "image/svg+xml", saved.figures[name]())],
    ["PNG", () => downloadPng(`${name}.png`, saved.figures[name]())],
    ...(records ? [["CSV", () => downloadText(`${name}.csv`, "text/csv", csv(records()))]] : [])]);
  const frame = el(
    "figure", {class: "frame", id: name, "aria-label": title},
    bare ? null : el("header", {}, el("h4", {}, title), buttons),
    controls.length || bare ? el("div", {class: "controls"}, controls, bare ? buttons : null) : null, plot, under);
  frame.redraw = guardedDrawing(plot, () => {
    const svg = make(view.width, false);
    plot.replaceChildren(svg ? svg.attr("role", "group").attr("aria-label", title).node()
                             : el("p", {class: "note"}, "Nothing to show for the methods switched on."));
    under.replaceChildren(...[caption()].flat());
  });
  view.frames.push(frame);
  return frame;
}

/** One figure that fails must not take the others with it. */
function guardedDrawing(place, action) {
  return () => {
    try {
      action();
    } catch (error) {
      console.error(error);
      place.replaceChildren(el("p", {class: "note"}, `This could not be drawn: ${error.message}`));
    }
  };
}

/** A table that sorts. columns: [{label, title, value(row), cell(row), left, plain}]; records(): what is saved. */
function table(view, id, {title, columns, rows, records, caption, sort = null, row_class = () => null}) {
  const name = `g${view.index}-${id}`;
  saved.tables[name] = records;
  const body = el("tbody");
  const state = {column: sort ? sort[0] : -1, down: sort ? sort[1] : true};
  const heads = columns.map((c, i) => el("th", {scope: "col", class: c.left ? null : "n", title: c.title},
    el("button", {type: "button", click: () => {
      state.down = state.column === i ? !state.down : !c.left;
      state.column = i;
      frame.redraw();
    }}, c.label)));
  const buttons = saveButtons(title, [
    ["CSV", () => downloadText(`${name}.csv`, "text/csv", csv(records()))],
    ["JSON", () => downloadText(`${name}.json`, "application/json", JSON.stringify(records(), null, 1))]]);
  const under = el("p", {class: "note"});
  const frame = el("section", {class: "frame", id: name, "aria-label": title},
    el("header", {}, el("h4", {}, title), buttons),
    el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": title},
       el("table", {}, el("thead", {}, el("tr", {}, heads)), body)), under);
  frame.redraw = guardedDrawing(under, () => {
    heads.forEach(
      (h, i) => h.setAttribute("aria-sort", i === state.column ? (state.down ? "descending" : "ascending") : "none"));
    const column = columns[state.column];
    const sorted = column ? [...rows()].sort(by(column.value, state.down)) : rows();
    body.replaceChildren(...sorted.map((r) => el("tr", {class: row_class(r), "data-method": r.method || null},
      columns.map((c, i) => el(i ? "td" : "th", {scope: i ? null : "row",
        class: [c.left ? "" : "n", c.wrap ? "wrap" : ""].join(" ").trim() || null}, c.cell(r))))));
    under.replaceChildren(...[caption ? caption() : ""].flat());
  });
  view.frames.push(frame);
  return frame;
}

/** Order by a value, missing ones last whichever way. */
function by(value, down) {
  return (a, b) => {
    const [x, y] = [value(a), value(b)];
    const [no_x, no_y] = [x, y].map((v) => v === null || v === undefined || v === "" || Number.isNaN(v));
    if (no_x || no_y) return no_x - no_y;
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", {numeric: true});
    return down ? -order : order;
  };
}

/** Redraws at most once per frame of the screen, however fast a slider moves. */
function lazily(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false, action(); });
  };
}

/** options: [[value, text]] or [[heading, [[value, text], ...]]]. */
function select(label, options, value, change) {
  const option = ([v, t]) => el("option", {value: v, selected: v === value}, t);
  const box = el("select", {change: () => change(box.value)},
    options.map((o) => (Array.isArray(o[1]) ? el("optgroup", {label: o[0]}, o[1].map(option)) : option(o))));
  return el("label", {}, label, box);
}

function segments(label, options, value, change) {
  const buttons = options.map(
    ([v, t, why]) => el(
      "button", {
        type: "button",
        title: why,
        "aria-pressed": String(v === value),
        click: () => {
          buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(options[i][0] === v)));
          change(v);
        }
      },
      t));
  return el("fieldset", {}, el("legend", {}, label), el("span", {class: "segments"}, buttons));
}

function slider(label, {min, max, value, say, wide}, change) {
  const shown = el("output", {}, say(value));
  const input =
    el("input", {type: "range", min, max, value, step: 1, class: wide ? "wide" : null, "aria-valuetext": say(value)});
  const update = () => {
    shown.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", () => { update(), change(Number(input.value)); });
  const node = el("label", {}, label, input, shown);
  node.set = (v) => { input.value = v, update(); };
  return node;
}

function checkbox(label, value, change) {
  const box = el("input", {type: "checkbox", checked: value, change: () => change(box.checked)});
  return el("label", {}, box, label);
}

// ---------------------------------------------------------------------------------------------- a group's data

/** What all sections of a group need: methods with their colours, names of tasks, who is switched off. */
function viewOf(group, index) {
  const methods = list(group.methods).map((m, i) => ({
    name: m.name, settings: m.settings || "", seeds: list(m.seeds), summary: m.summary || {},
    colour: `var(--c${i % COLOURS})`, dash: DASHES[Math.floor(i / COLOURS) % DASHES.length],
  }));
  const recorded =
    methods.flatMap((m) => m.seeds.flatMap((s) => Object.values(s.measures || {}).map((v) => list(v).length)));
  const tasks = Math.max(1, group.tasks || 0, most(recorded));
  const slope_scale = tasks > 300 ? 100 : 10;
  const view = {
    index,
    group,
    methods,
    tasks,
    hidden: new Set(),
    frames: [],
    width: 900,
    domain: tasks > 1 ? [1, tasks] : [0.5, 1.5],
    summaries: {
      ...SUMMARIES,
      slope: {...SUMMARIES.slope, scale: slope_scale, digits: 2, label: `Slope per ${slope_scale} tasks`}
    }
  };
  view.shown = () => methods.filter((m) => !view.hidden.has(m.name));
  view.task_name = (t) => {
    const name = list(group.task_names)[t - 1];
    const again = list(group.revisit)[t - 1] ? " (revisit)" : "";
    const easy = list(group.easy)[t - 1] ? " (easy: not counted)" : "";
    return `Task ${t}${name && name !== String(t) ? `: ${shorten(name, 60)}` : ""}${again}${easy}`;
  };
  view.redraw = () => view.frames.forEach((f) => f.redraw());
  for (const m of methods) for (const s of m.seeds) s.measures = s.measures || {};
  return view;
}

const seedsOf = (m, has) => m.seeds.filter(has);
const anySeed = (view, has) => view.methods.some((m) => m.seeds.some(has));
const valuesOf = (seed, measure) => list(seed.measures[measure]).filter(finite);
const average = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

/** Least-squares slope of a list over its index, missing values left out. */
function slopeOf(values) {
  const kept = values.map((y, x) => ({x, y})).filter((p) => finite(p.y));
  if (kept.length < 2) return null;
  const mx = average(kept.map((p) => p.x)), my = average(kept.map((p) => p.y));
  const sxx = kept.reduce((a, p) => a + (p.x - mx) ** 2, 0);
  return kept.reduce((a, p) => a + (p.x - mx) * (p.y - my), 0) / sxx;
}

/** One seed's value of a summary, where the page can compute it; null where only the program can. */
function seedSummary(seed, key) {
  const counted = (measure) => list(seed.measures[measure]).filter((_, t) => !list(seed.easy)[t]);
  const accuracy = counted("task_accuracy");
  if (key === "aat") return average(accuracy.filter(finite));
  if (key === "last_quarter")
    return average(accuracy.slice(-Math.max(1, Math.floor(accuracy.length / 4))).filter(finite));
  if (key === "slope") return slopeOf(accuracy);
  if (key === "online") return average(counted("online_accuracy").filter(finite));
  if (key === "gap") return average(counted("gap").filter(finite));
  return COSTS.includes(key) && finite(seed[key]) ? seed[key] : null;
}

/** {mean, deviation, low, high, n} of a method: from the data, or else from its finished seeds; null without one. */
function summaryOf(m, key) {
  const given = m.summary[key];
  if (given && finite(given.mean)) return given;
  const finished = m.seeds.filter((s) => s.status === "finished");
  // What a run costs shows before its end; what it learned is its mean over all tasks.
  const counted = COSTS.includes(key) && !finished.length ? m.seeds : finished;
  const values = counted.map((s) => seedSummary(s, key)).filter(finite);
  if (!values.length) return null;
  const s = spread(values);
  return {mean: s.mean, deviation: s.deviation, n: s.n,
          low: s.half === null ? null : s.mean - s.half, high: s.half === null ? null : s.mean + s.half};
}

function summaryKeys(view) {
  const found = new Set(view.methods.flatMap((m) => Object.keys(m.summary)));
  const known = (key) => view.methods.some((m) => summaryOf(m, key) || m.seeds.some((s) => finite(seedSummary(s, key))));
  for (const key of Object.keys(SUMMARIES)) if (known(key)) found.add(key);
  if (view.tasks < 2) found.delete("slope"), found.delete("last_quarter");
  const order = Object.keys(SUMMARIES);
  return [...found].filter((k) => !COSTS.includes(k) && known(k))
    .sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99));
}

/** How a summary is called and printed. */
function summaryStyle(view, key) {
  const known =
    view.summaries[key] || {label: worded(key), help: `recorded by the run as \u201c${key}\u201d`, better: 0};
  const factor = (known.share ? 100 : 1) * (known.scale || 1);
  const digits = known.digits || (known.share ? 1 : 2);
  const plain = guarded((v) => (factor * v).toFixed(digits));
  const signed = guarded((v) => (v > 0 ? "+" : "") + (factor * v).toFixed(digits));
  return {
    ...known,
    key,
    factor,
    plain,
    text: known.signed ? signed : plain,
    unit: known.share ? (known.signed ? " points" : "%") : ""
  };
}

// ---------------------------------------------------------------------------------------------- head of a group

const statusCount = (view, status) =>
  view.methods.reduce((n, m) => n + m.seeds.filter((s) => s.status === status).length, 0);

function noticeBox(title, notices) {
  if (!notices.length) return null;
  const items = (some) => el("ul", {}, some.map((n) => el("li", {}, n)));
  const shown = 6;
  return el("aside", {class: "notice", "aria-label": title}, el("b", {}, title), items(notices.slice(0, shown)),
    notices.length > shown
      ? el("details", {}, el("summary", {}, `${notices.length - shown} more`), items(notices.slice(shown))) : null);
}

/** The result in plain words; every sentence is left out when its numbers are missing. */
function inWords(view) {
  const ranked =
    view.methods.map((m) => ({m, s: summaryOf(m, "aat")})).filter((r) => r.s).sort((a, b) => b.s.mean - a.s.mean);
  if (!ranked.length) return "No run has come to its end yet.";
  const [best, next] = ranked;
  const interval = (s) =>
    (finite(s.low) ? ` (95% interval ${percentBare(s.low)} to ${percent(s.high)}, ${plural(s.n, "seed")})` :
                     ` (${plural(s.n || 1, "seed")}, so without an interval)`);
  const sentences = [];
  if (!next)
    sentences.push(`${best.m.name} reaches ${percent(best.s.mean)} average accuracy over tasks${interval(best.s)}.`);
  else {
    sentences.push(
      `Of ${ranked.length} methods${ranked.length < view.methods.length ? " with a finished run" : ""}, ${best.m.name} has the highest average accuracy over tasks: ` +
      `${percent(best.s.mean)}${interval(best.s)}, ${percentBare(best.s.mean - next.s.mean)} points above ${
        next.m.name}.`);
    sentences.push(comparedWithNext(view, best, next));
  }
  sentences.push(trend(view), againstFresh(view), nearChance(view, ranked));
  return sentences.filter(Boolean).join(" ");
}

function comparedWithNext(view, best, next) {
  const test = list(view.group.tests).find((t) => t.measure === "aat" && [t.a, t.b].includes(best.m.name)
    && [t.a, t.b].includes(next.m.name));
  if (![best.s.low, next.s.high].every(finite)) return "";
  const overlap =
    best.s.low <= next.s.high ? "The intervals of these two overlap" : "The intervals of these two do not overlap";
  if (!test || !finite(test.p)) return overlap + ".";
  const verdict =
    test.p < 0.05 ? "the difference between them is unlikely to be chance" : "the difference may well be chance";
  return `${overlap}; paired over seeds, ${verdict} (p ${test.p < 0.001 ? "" : "= "}${probability(test.p)}).`;
}

function trend(view) {
  if (view.tasks < 3) return "";
  const slopes = view.methods.map((m) => ({m, s: summaryOf(m, "slope")})).filter((r) => r.s && finite(r.s.low));
  if (!slopes.length) return "";
  const names = (some) => together(some.map((r) => r.m.name));
  const fall = slopes.filter((r) => r.s.high < 0), rise = slopes.filter((r) => r.s.low > 0);
  if (!fall.length && !rise.length) return "No method shows a clear rise or fall of accuracy over the tasks.";
  const steepest = [...fall].sort((a, b) => a.s.mean - b.s.mean)[0];
  const style = summaryStyle(view, "slope");
  const parts = [];
  if (fall.length) {
    parts.push(
      `accuracy falls over the tasks for ${names(fall)} (${fall.length > 1 ? "fastest: " + steepest.m.name + ", " : ""}`
      +
      `${style.text(steepest.s.mean)} points per ${style.scale} tasks)`);
  }
  if (rise.length) parts.push(`${fall.length ? "it" : "accuracy"} rises for ${names(rise)}`);
  const rest = slopes.length - fall.length - rise.length;
  if (rest) parts.push(`${rest === 1 ? "one method shows" : rest + " methods show"} no clear trend`);
  const sentence = together(parts);
  return sentence.charAt(0).toUpperCase() + sentence.slice(1) + ".";
}

function againstFresh(view) {
  const gaps =
    view.methods.map((m) => ({m, s: summaryOf(m, "gap")})).filter((r) => r.s).sort((a, b) => a.s.mean - b.s.mean);
  if (!gaps.length) return "";
  const said = (r) => `${percentBare(r.s.mean)} points for ${r.m.name}`;
  const behind = "behind a network that starts fresh on each task";
  if (gaps.length === 1) return `On average it is ${said(gaps[0])} ${behind}.`;
  return `The mean gap to a network that starts fresh on each task runs from ${said(gaps[0])} to `
    + `${said(gaps[gaps.length - 1])}; above zero, the stream has cost ability to learn.`;
}

function nearChance(view, ranked) {
  const chance = view.group.chance;
  if (!finite(chance)) return "";
  const low = ranked.filter((r) => finite((summaryOf(r.m, "last_quarter") || {}).mean)
    && summaryOf(r.m, "last_quarter").mean < chance + 0.1 * (1 - chance));
  return low.length ? `In the last quarter of the tasks, ${together(low.map((r) => r.m.name))} `
    + `${low.length > 1 ? "are" : "is"} close to chance (${percent(chance)}).` : "";
}

function methodBar(view) {
  const chips = view.methods.map(
    (m) => el(
      "button", {
        type: "button",
        class: "chip",
        "aria-pressed": "true",
        "data-chip": m.name,
        title: `${m.name}\n${m.settings ? m.settings + "\n" : ""}` +
          "Click: show or hide. Double click, or shift and click: only this one.",
        click: (event) => (event.shiftKey ? isolate(m) : toggle(m)),
        dblclick: () => isolate(m),
        pointerenter: () => emphasise(m),
        pointerleave: () => emphasise(null),
      },
      lineSample(m), shorten(m.name, 40)));
  const apply = () => {
    view.methods.forEach((m, i) => chips[i].setAttribute("aria-pressed", String(!view.hidden.has(m.name))));
    emphasise(null);
    view.redraw();
  };
  const toggle = (m) => { view.hidden.delete(m.name) || view.hidden.add(m.name), apply(); };
  const isolate = (m) => {
    const alone = view.shown().length === 1 && !view.hidden.has(m.name);
    view.hidden = new Set(alone ? [] : view.methods.filter((other) => other !== m).map((other) => other.name));
    apply();
  };
  const emphasise = (m) => {
    const shown = m && !view.hidden.has(m.name) && view.shown().length > 1;
    for (const node of document.querySelectorAll(`#group-${view.index} svg [data-method]`)) {
      node.classList.toggle("dim", Boolean(shown) && node.getAttribute("data-method") !== m.name);
    }
  };
  const all = el("button", {type: "button", class: "link", click: () => { view.hidden.clear(), apply(); }}, "Show all");
  return el("div", {class: "bar", role: "group", "aria-label": "Methods"}, chips, chips.length > 1 ? all : null);
}

function lineSample(m) {
  const svg = d3.create("svg").attr("width", 18).attr("height", 8).attr("aria-hidden", "true");
  put(svg, "path", {d: "M0,4H18", "stroke-width": 3, "stroke-dasharray": m.dash}, {stroke: m.colour});
  return svg.node();
}

// ---------------------------------------------------------------------------------------------- lines over seeds

const BANDS = [
  ["interval", "95%", "Mean and its 95% interval over seeds"],
  ["deviation", "SD", "Mean and standard deviation over seeds"], ["seeds", "Seeds", "Mean and every single seed"]
];
/** With fewer than three seeds an interval says little: then the seeds themselves. */
const usualBand = (view) => (most(view.methods.map((m) => m.seeds.length)) < 3 ? "seeds" : "interval");
/** Seeds bring other classes and images, easy and hard ones. Taking out what a seed does to every method leaves what
 * methods do: the interval within seeds (Cousineau 2005). */
const PAIRED = ["paired", "95% paired", "Mean and its 95% interval, each seed's mean over all methods taken out"];
const BAND_WORDS = {
  paired: "Lines are means over seeds, bands their 95% intervals, each seed\u2019s mean over all methods taken out.",
  interval: "Lines are means over seeds, bands their 95% intervals (Student\u2019s t).",
  deviation: "Lines are means over seeds, bands one standard deviation to each side.",
  seeds: "Strong lines are means over seeds, thin lines single seeds.",
};

const bandWords = (view, band) => (most(view.methods.map((m) => m.seeds.length)) < 2
  ? "One seed a method, so there are no bands." : BAND_WORDS[band]);

/** A method's line from one list of points a seed: the mean wherever any seed has a point, and the chosen band. */
function lineOf(m, seeds, band) {
  const at = new Map();
  for (const points of seeds) for (const p of points) at.has(p.x) ? at.get(p.x).push(p.y) : at.set(p.x, [p.y]);
  const line = [], edges = [];
  for (const x of [...at.keys()].sort((a, b) => a - b)) {
    const s = spread(at.get(x));
    const half = (band === "deviation" ? s.deviation : s.half) || 0;
    line.push({x, y: s.mean});
    edges.push({x, low: s.mean - half, high: s.mean + half});
  }
  const spread_known = seeds.length > 1 && band !== "seeds";
  return {key: m.name, name: m.name, colour: m.colour, dash: m.dash, line, band: spread_known ? edges : null,
          thin: band === "seeds" && seeds.length > 1 ? seeds : null};
}

const pointsOf = (values, x = (i) => i + 1) => list(values).map((y, i) => ({x: x(i), y})).filter((p) => finite(p.y));

function lineFigure(view, id, spec) {
  const records = () => spec.lines().series.flatMap((s) => s.line.map((p, i) =>
    ({line: s.name, x: p.x, value: p.y, low: s.band ? s.band[i].low : null, high: s.band ? s.band[i].high : null})));
  return figure(view, id, {...spec, records, make: (width, still) => {
    const o = spec.lines();
    if (!o.series.some((s) => s.line.length)) return null;
    const height = spec.height || clamp(Math.round(width * 0.44), 260, 400);
    const svg = newSvg(width, height, spec.title);
    drawLines(svg, width, height, {labels: true, ...o, still});
    return svg;
  }});
}

// ---------------------------------------------------------------------------------------------- accuracy over tasks

function measureKeys(view) {
  const found = new Set(view.methods.flatMap((m) => m.seeds.flatMap((s) =>
    Object.keys(s.measures).filter((k) => valuesOf(s, k).length))));
  const order = Object.keys(MEASURES);
  return [...found].sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99));
}
const measureStyle = (key) => MEASURES[key] || {label: worded(key), help: `Recorded by the run as \u201c${key}\u201d.`};

/** Several methods share at least three seeds. */
const pairable = (view) => {
  const counts = new Map();
  for (const m of view.methods) for (const s of m.seeds) counts.set(s.seed, (counts.get(s.seed) || 0) + 1);
  return [...counts.values()].filter((n) => n > 1).length > 2;
};

/** The methods that finished every seed. */
const wholeMethods = (view) => view.methods.filter((m) =>
  m.seeds.length === most(view.methods.map((x) => x.seeds.length)) && m.seeds.every((s) => s.status === "finished"));

/** How much higher a seed's measure is than the mean of all seeds: over the methods that finished every seed. */
function seedShifts(view, measure) {
  let known = null, shifts = new Map();
  return (seed) => {
    if (known !== measure()) {
      known = measure(), shifts = new Map();
      const whole = wholeMethods(view);
      for (const m of whole)
        for (const s of m.seeds) {
          const mean = d3.mean(valuesOf(s, known).filter(finite));
          if (finite(mean)) shifts.set(s.seed, (shifts.get(s.seed) || 0) + mean / whole.length);
        }
      const all = d3.mean([...shifts.values()]);
      for (const [key, value] of shifts) shifts.set(key, value - all);
    }
    return shifts.get(seed) || 0;
  };
}

function accuracySection(view) {
  const keys = measureKeys(view);
  if (!keys.length) return null;
  const revisit = list(view.group.revisit);
  const both = revisit.some(Boolean) && revisit.some((r) => !r);
  const state = {
    measure: keys[0],
    band: pairable(view) ? "paired" : usualBand(view),
    smooth: view.tasks > 200 ? oddNear(view.tasks / 50) : 1,
    visits: "all",
    zero: false
  };
  const easy = list(view.group.easy);
  const kept = (p) =>
    !easy[p.x - 1] && (state.visits === "all" || Boolean(revisit[p.x - 1]) === (state.visits === "again"));
  const shift = seedShifts(view, () => state.measure);
  const seedLine = (s) => smoothed(pointsOf(s.measures[state.measure]).filter(kept), state.smooth)
    .map((p) => (state.band === "paired" ? {x: p.x, y: p.y - shift(s.seed)} : p));
  const set = (key) => (value) => { state[key] = value, redraw(); };

  const controls = [
    select("Measure", keys.map((k) => [k, measureStyle(k).label]), state.measure, set("measure")),
    segments("Band", pairable(view) ? [PAIRED, ...BANDS] : BANDS, state.band, set("band")),
    view.tasks > 9 ? slider(
      "Smoothing", {
        min: 0,
        max: Math.floor(view.tasks / 8),
        value: (state.smooth - 1) / 2,
        say: (v) => (v ? `${2 * v + 1} tasks` : "off")
      },
      (v) => set("smooth")(2 * v + 1)) :
                     null,
    both ?
      segments("Visits", [["all", "All"], ["first", "First"], ["again", "Revisits"]], state.visits, set("visits")) :
      null,
    checkbox("from zero", state.zero, set("zero")),
  ].filter(Boolean);

  const frame = lineFigure(view, "accuracy", {
    title: "Accuracy over tasks",
    bare: true,
    controls,
    lines: () => {
      const style = measureStyle(state.measure);
      const series = view.shown().map((m) => {
        const lines = m.seeds.map((s) => ({s, points: seedLine(s)})).filter((l) => l.points.length);
        const ends = lines.filter((l) => l.s.status === "diverged").map((l) => l.points[l.points.length - 1]);
        return {...lineOf(m, lines.map((l) => l.points), state.band), ends};
      });
      const reference = referenceLine(view, state, style, series);
      return {series, lines: reference, x: {domain: view.domain, label: "task", name: view.task_name},
        y: {label: style.label + (style.signed ? ", points" : ""), share: style.share, zero: state.zero,
            format: style.share ? (style.signed ? points : percent) : number, include: reference.map((r) => r.y)}};
    },
    caption:
      () => [measureStyle(state.measure).help,
             bandWords(view, state.band),
             state.smooth > 1 ? `Smoothed: each seed is first averaged over ${state.smooth} neighbouring tasks.` : "",
             {all: "", first: "Only tasks seen for the first time.", again: "Only tasks seen before."}[state.visits],
             chanceBelow() ? `Chance (${percent(view.group.chance)}) lies below the axis.` : "",
             statusCount(view, "diverged") ?
               "A cross marks where a seed diverged; from there on the mean is over the others." :
               "",
  ].filter(Boolean)
              .join(" ")
  });
  const chanceBelow = () => finite(view.group.chance) && measureStyle(state.measure).share
    && !measureStyle(state.measure).signed && !frame.querySelector("[data-reference]");
  const redraw = lazily(frame.redraw);
  return section(view, "accuracy-section", "Accuracy over tasks", frame);
}

const oddNear = (v) => 2 * Math.floor(v / 2) + 1;

/** Chance for accuracies of the test, when it is near enough to be shown; zero for the gap. */
function referenceLine(view, state, style, series) {
  if (state.measure === "gap") return [{y: 0, label: "as good as fresh"}];
  const chance = view.group.chance;
  if (!finite(chance) || !style.share) return [];
  const found = extent(series.flatMap((s) => s.line.map((p) => p.y)));
  const near = state.zero || (found && found[0] - chance < 0.6 * (found[1] - found[0] + 0.02));
  return near ? [{y: chance, label: `chance ${percent(chance)}`}] : [];
}

// ---------------------------------------------------------------------------------------------- comparison

function comparisonSection(view) {
  const keys = summaryKeys(view);
  if (!keys.length) return null;
  const state = {key: keys.includes("aat") ? "aat" : keys[0], paired: pairable(view)};
  // Within seeds: each seed's mean over all methods is taken out before the interval is made.
  const whole = wholeMethods(view);
  const within = (m, s) => {
    const grand = (key) => d3.mean(whole, (w) => d3.mean(w.seeds, (x) => seedSummary(x, key)));
    const ofSeed = (number) =>
      d3.mean(whole, (w) => seedSummary(w.seeds.find((x) => x.seed === number) || {measures: {}}, state.key));
    const values = m.seeds.filter((x) => x.status === "finished" && finite(seedSummary(x, state.key)))
      .map((x) => seedSummary(x, state.key) - ofSeed(x.seed) + grand(state.key));
    const found = values.length > 1 && values.every(finite) ? spread(values) : null;
    return found ? {...s, low: s.mean - found.half, high: s.mean + found.half} : s;
  };
  const rows = () => {
    const style = summaryStyle(view, state.key);
    // Without a finished seed a method has rings alone, at the end.
    const none = {mean: null, low: null, high: null};
    return view.shown().map((m) => ({m, s: summaryOf(m, state.key) || none}))
      .filter(({m, s}) => finite(s.mean) || m.seeds.some((seed) => finite(seedSummary(seed, state.key))))
      .map(({m, s}) => ({m, s: state.paired && finite(s.mean) ? within(m, s) : s}))
      .sort((a, b) => finite(b.s.mean) - finite(a.s.mean) || (style.better < 0 ? 1 : -1) * (a.s.mean - b.s.mean))
      .map(({m, s}) => ({name: m.name, colour: m.colour, mean: s.mean, low: s.low, high: s.high,
        text: !finite(s.mean) ? "no finished run"
          : style.text(s.mean) + (finite(s.low) ? ` [${style.text(s.low)}, ${style.text(s.high)}]` : ""),
        seeds: m.seeds.map((seed) => ({value: seedSummary(seed, state.key), status: seed.status}))}));
  };
  const dots = figure(view, "aat", {title: "Methods compared", bare: true,
    controls: [
      keys.length > 1 ? select("Measure", keys.map((k) => [k, summaryStyle(view, k).label]), state.key,
                               (v) => { state.key = v, dots.redraw(); }) : null,
      pairable(view) ?
        checkbox("intervals within seeds", state.paired, (v) => { state.paired = v, dots.redraw(); }) : null
    ].filter(Boolean),
    make: (width, still) => {
      const shown = rows(), style = summaryStyle(view, state.key);
      if (!shown.length) return null;
      const svg = newSvg(width, rowsHeight(shown.length, width), `${style.label} of the methods`);
      drawRows(svg, width, {rows: shown, still, columns: "mean [95% interval]",
        tick: (v) => minus(String(Number((style.factor * v).toPrecision(4)))) + (style.unit === "%" ? "%" : "")});
      return svg;
    },
    caption: () => {
      const style = summaryStyle(view, state.key);
      return `${style.label}: ${style.help}. Best on top. Dots are means over seeds, bars 95% intervals`
        + (state.paired ? " once each seed\u2019s mean over all methods is taken out" : "")
        + (view.methods.some((m) => m.seeds.some((s) => seedSummary(s, state.key) !== null))
          ? ", rings single seeds (dashed: unfinished; a cross: diverged, over the tasks before)." : ".");
    }});
  return section(view, "comparison", "Methods compared", dots, testTable(view), summaryTable(view, keys));
}

/** Adjusts p values for the number of tests (Holm 1979): sorted upwards, the i-th times those left, never falling. */
function holm(tests) {
  const adjusted = new Map();
  let floor = 0;
  const sorted = tests.filter((t) => finite(t.p)).sort((a, b) => a.p - b.p);
  sorted.forEach((t, i) => {
    floor = Math.max(floor, Math.min(1, t.p * (sorted.length - i)));
    adjusted.set(t, floor);
  });
  return adjusted;
}

function testTable(view) {
  const tests = list(view.group.tests);
  if (!tests.length) return null;
  const measures = [...new Set(tests.map((t) => t.measure))];
  const names = view.methods.map((m) => m.name);
  const ranked = [...view.methods].sort(by((m) => (summaryOf(m, "aat") || {}).mean, true));
  const state = {
    measure: measures.includes("aat") ? "aat" : measures[0],
    of: names.length > 3 && tests.some((t) => [t.a, t.b].includes(ranked[0].name)) ? ranked[0].name : "all"
  };
  const pairs = () => tests.filter((t) => t.measure === state.measure).length;
  const adjusted = new Map(measures.flatMap((k) => [...holm(tests.filter((t) => t.measure === k))]));
  const flip = (t) => ({...t, a: t.b, b: t.a, difference: -t.difference, low: finite(t.high) ? -t.high : null,
                        high: finite(t.low) ? -t.low : null});
  const rows = () => tests.filter((t) => t.measure === state.measure && !view.hidden.has(t.a) && !view.hidden.has(t.b))
    .filter((t) => state.of === "all" || t.a === state.of || t.b === state.of)
    .map((t) => ({...(state.of !== "all" && t.b === state.of ? flip(t) : t), holm: adjusted.get(t)}));
  const style = () => summaryStyle(view, state.measure);
  const signed = (v) => guarded((w) => (w > 0 ? "+" : "") + (style().factor * w).toFixed(style().digits || 1))(v);
  const set = (key) => (value) => { state[key] = value, frame.redraw(); };
  const named = (name) => {
    const m = view.methods.find((other) => other.name === name);
    return m ? nameCell(m) : name;
  };
  const frame = table(view, "tests", {
    title: "Differences, paired over seeds",
    rows,
    sort: [2, true],
    columns: [
      {label: "Method", left: true, value: (r) => r.a, cell: (r) => named(r.a)},
      {label: "minus", left: true, value: (r) => r.b, cell: (r) => named(r.b)},
      {label: "Difference", value: (r) => r.difference, cell: (r) => signed(r.difference)},
      {
        label: "95% interval",
        value: (r) => r.low,
        cell: (r) => (finite(r.low) ? `${signed(r.low)} to ${signed(r.high)}` : "\u2013")
      },
      {label: "p", value: (r) => r.p, cell: (r) => probability(r.p)},
      {
        label: "p, Holm",
        title: "Adjusted for the number of pairs (Holm 1979)",
        value: (r) => r.holm,
        cell: (r) => probability(r.holm)
      },
      {label: "Seeds", value: (r) => r.n, cell: (r) => whole(r.n)},
    ],
    row_class: (r) => (finite(r.holm) && r.holm < 0.05 ? "clear" : null),
    records: () => tests.map((t) => ({...t, p_holm: adjusted.get(t)})),
    caption: () =>
      `${style().label}${style().share ? ", differences in percentage points" : ""}. Strong rows stay below 0.05 ` +
      `after Holm\u2019s adjustment for ${pairs() === 1 ? "one pair" : `all ${pairs()} pairs`} of methods. ` +
      "With few seeds, a missing difference is not evidence of equality."
  });
  frame.insertBefore(
    el(
      "div", {class: "controls"},
      measures.length > 1 ?
        select("Measure", measures.map((k) => [k, summaryStyle(view, k).label]), state.measure, set("measure")) :
        null,
      names.length > 2 ?
        select("Pairs with", [["all", "any method"], ...names.map((n) => [n, n])], state.of, set("of")) :
        null),
    frame.children[1]);
  return frame;
}

function summaryTable(view, keys) {
  const columns = keys.map((key) => {
    const style = summaryStyle(view, key);
    return {label: style.label + (style.share ? (style.signed ? " (points)" : " (%)") : ""), title: style.help,
      value: (r) => (summaryOf(r.m, key) || {}).mean,
      cell: (r) => {
        const s = summaryOf(r.m, key);
        if (!s) return "\u2013";
        return [
          style.text(s.mean),
          finite(s.deviation) && s.n > 1 ? el("span", {class: "spread"}, ` \u00b1 ${style.plain(s.deviation)}`) : null,
          finite(s.low) ? el("small", {}, `[${style.text(s.low)}, ${style.text(s.high)}]`) : null
        ].filter(Boolean);
      }};
  });
  return table(view, "summary", {
    title: "All summary measures",
    columns: [
      {label: "Method", left: true, value: (r) => r.method, cell: (r) => nameCell(r.m)}, {
        label: "Seeds",
        title: "Seeds that count",
        value: (r) => (summaryOf(r.m, keys[0]) || {}).n,
        cell: (r) => whole((summaryOf(r.m, keys[0]) || {}).n)
      },
      ...columns
    ],
    rows: () => view.shown().map((m) => ({m, method: m.name})),
    sort: [2, true],
    records: () =>
      view.methods.flatMap((m) => keys.map((key) => ({method: m.name, measure: key, ...summaryOf(m, key)}))),
    caption: () =>
      ["Mean \u00b1 sample standard deviation over seeds, below it the 95% interval of the mean. ",
       keys.map((k) => summaryStyle(view, k)).map((s) => `${s.label}: ${s.help}.`).join(" ")]
  });
}

// ---------------------------------------------------------------------------------------------- learning curves

function curvesSection(view) {
  const has = (s) => list(s.curves).some((c) => list(c).length > 1);
  if (!anySeed(view, has)) return null;
  const last = most(view.methods.flatMap(
    (m) => m.seeds.map((s) => 1 + list(s.curves).map((c) => list(c).length > 1).lastIndexOf(true))));
  const around = view.tasks >= 20 ? oddNear(view.tasks / 10) : 1;
  const state = {task: last, band: usualBand(view), width: 1, first: last > 1};
  /** A seed's curve at a task, averaged over `width` tasks around it. */
  const curve = (s, task, width) => {
    const half = Math.floor(width / 2);
    const some = list(s.curves).slice(Math.max(0, task - 1 - half), task + half).filter((c) => list(c).length);
    return pointsOf(meanNested(some) || [], (i) => i);
  };
  const lineAt = (m, task, width, band) =>
    lineOf(m, seedsOf(m, has).map((s) => curve(s, task, width)).filter((c) => c.length), band);
  const epochs =
    most(view.methods.flatMap((m) => m.seeds.flatMap((s) => list(s.curves).map((c) => list(c).length - 1))), 1);
  const set = (key) => (value) => { state[key] = value, redraw(); };
  const all =
    extent(view.methods.flatMap((m) => m.seeds.flatMap((s) => list(s.curves).flatMap((c) => extent(list(c)) || [])))) ||
    [0, 1];
  const frame = lineFigure(view, "curves", {
    title: "Learning within a task",
    bare: true,
    controls: [
      slider("Task", {min: 1, max: last, value: state.task, say: String, wide: true}, set("task")),
      around > 1 ? segments("Average", [[1, "this task"], [around, `${around} tasks around it`]], 1, set("width")) :
                   null,
      segments("Band", BANDS, state.band, set("band")),
      last > 1 ? checkbox("first task, dotted", state.first, set("first")) : null
    ].filter(Boolean),
    lines: () => ({
      series: [
        ...(
          state.first && state.task > 1 ? view.shown().map(
            (m) => ({...lineAt(m, 1, 1, "mean"), band: null, thin: null, faint: true, name: m.name + ", task 1"})) :
                                          []),
        ...view.shown().map((m) => lineAt(m, state.task, state.width, state.band))
      ],
      x: {domain: [0, epochs], label: "epoch", name: (e) => (e ? `After epoch ${e}` : "Before the first update")},
      y: {
        label: `Test accuracy, ${view.task_name(state.task).toLowerCase().slice(0, 60)}`,
        share: true,
        format: percent,
        include: all
      },
      lines: finite(view.group.chance) ? [{y: view.group.chance, label: `chance ${percent(view.group.chance)}`}] : []
    }),
    caption: () => "Test accuracy on the task that is being learned, before its first update and after each epoch. " +
      `The scale is the same for all tasks. ${bandWords(view, state.band)}`
      + (state.first && state.task > 1 ? " Dotted: the first task of the stream." : "")
      + (state.width > 1 ? ` Averaged over ${state.width} tasks around task ${state.task}.` : "")
  });
  const redraw = lazily(frame.redraw);
  return section(view, "curves-section", "Learning within a task", frame);
}

/** Element-wise mean of numbers or of nested lists of one shape; missing values are left out. */
function meanNested(items) {
  const some = items.filter((v) => Array.isArray(v) || finite(v));
  if (!some.length) return null;
  if (!Array.isArray(some[0])) return average(some);
  return range(most(some.map((v) => v.length))).map((i) => meanNested(some.map((v) => v[i])));
}

// ---------------------------------------------------------------------------------------------- diagnosis

/**
 * Reads the diagnosis of methods. kind: "blocks", "model", "heads" or "scalars". at(m, kind, key, seed) gives
 * [{x: task, values, seeds: [values of each seed]}] in the order of tasks; seed is "mean" or a seed's number.
 */
function diagnosisOf(view) {
  const source = (s, kind) => (kind === "scalars" ? s.scalars || {} : (s.diagnosis || {})[kind] || {});
  const tasksOf = (s, kind, key) =>
    (kind === "scalars" ? list(source(s, kind)[key]).map((_, i) => i + 1) : list(s.diagnosis.tasks));
  const keys =
    (kind) => [...new Set(view.methods.flatMap((m) => m.seeds.flatMap((s) => Object.keys(source(s, kind)))))].sort();
  const remembered = new Map();

  const read = (m, kind, key, seed) => {
    const rows = new Map();
    for (const s of m.seeds) {
      if (seed !== "mean" && String(s.seed) !== seed) continue;
      const values = list(source(s, kind)[key]);
      if (!values.length) continue;
      tasksOf(s, kind, key).forEach((task, i) => {
        if (values[i] === null || values[i] === undefined) return;
        rows.has(task) ? rows.get(task).push(values[i]) : rows.set(task, [values[i]]);
      });
    }
    return [...rows].sort((a, b) => a[0] - b[0]).map(([x, seeds]) => ({x, seeds, values: meanNested(seeds)}));
  };
  const at = (m, kind, key, seed) => {
    const name = `${m.name}\n${kind}\n${key}\n${seed}`;
    if (!remembered.has(name)) remembered.set(name, read(m, kind, key, seed));
    return remembered.get(name);
  };
  /** What a number of a row is: a block's, or the mean over blocks; rows without it drop out. */
  const pick = (values, block) =>
    (!Array.isArray(values) ? values :
       block === "mean"     ? average(values.filter(finite)) :
                              values[block]);
  /** One list of points a seed over tasks, for lineOf; seeds are matched by their place in each row. */
  const overTasks = (m, kind, key, seed, block) => {
    const lines = [];
    for (const row of at(m, kind, key, seed)) {
      row.seeds.forEach((values, i) => {
        const y = pick(values, block);
        if (finite(y)) (lines[i] = lines[i] || []).push({x: row.x, y});
      });
    }
    return lines.filter(Boolean);
  };
  const tasks = [...new Set(view.methods.flatMap((m) => m.seeds.flatMap((s) => list((s.diagnosis || {}).tasks))))].sort(
    (a, b) => a - b);
  const blocks = most(view.methods.flatMap((m) => m.seeds.flatMap((s) =>
    Object.values(source(s, "blocks")).slice(0, 1).map((v) => list(list(v)[0]).length))));
  return {keys, at, overTasks, tasks, blocks};
}

/** Each recorded task as a column that reaches half way to its neighbours. */
function columnsOf(rows) {
  return rows.map((r, i) => ({x: r.x, values: list(r.values),
    x0: i ? (rows[i - 1].x + r.x) / 2 : r.x - 0.5, x1: i + 1 < rows.length ? (r.x + rows[i + 1].x) / 2 : r.x + 0.5}));
}

/** Keys for a selector, sorted into the parts of the network. */
function keyOptions(keys) {
  const parts = new Map();
  for (const key of keys) {
    const d = describe(key);
    parts.has(d.part) ? parts.get(d.part).push([key, d.short]) : parts.set(d.part, [[key, d.short]]);
  }
  const order = Object.values(PARTS);
  const place = (part) => { const i = order.findIndex((p) => part.startsWith(p)); return i < 0 ? 99 : i; };
  return [...parts]
    .sort((a, b) => place(a[0]) - place(b[0]))
    .map(([part, some]) => [part, some.map(([k, t]) => [k, `${part}: ${t}`])]);
}

const blockOptions = (n) => [["mean", "mean over blocks"], ...range(n).map((b) => [String(b), `block ${b + 1}`])];
const blockOf = (value) => (value === "mean" ? "mean" : Number(value));
const blockWords = (value) => (value === "mean" ? "mean over blocks" : `block ${Number(value) + 1}`);

function diagnosisSection(view) {
  const d = diagnosisOf(view);
  const parts = [
    d.keys("blocks").length ? blockFigures(view, d) : null, moduleFigure(view, d), wholeFigure(view, d)
  ].flat().filter(Boolean);
  if (!parts.length) return null;
  return section(view, "diagnosis", "Inside the network", ...parts);
}

/** Heat maps, the profile over blocks and lines over tasks of one quantity, with common controls; and the heads'. */
function blockFigures(view, d) {
  const keys = d.keys("blocks"), head_keys = d.keys("heads");
  const first = ["tokens.effective_rank", "units.active"].find((k) => keys.includes(k)) || keys[0];
  const seeds =
    [...new Set(view.methods.flatMap((m) => m.seeds.filter((s) => s.diagnosis).map((s) => String(s.seed))))];
  const state = {
    key: first,
    seed: "mean",
    at: d.tasks.length - 1,
    log: false,
    block: "mean",
    band: usualBand(view),
    head: head_keys[0]
  };
  const task = () => d.tasks[state.at];
  const rows = (m, kind = "blocks", key = state.key) => d.at(m, kind, key, state.seed);
  const scaleFor = (kind, key) =>
    colourScale(view.shown().flatMap((m) => rows(m, kind, key).flatMap((r) => list(r.values).flat())), state.log);
  // The colour scale and the pictures cost a pass over all values: made anew only when something but the task changes.
  let scale = null;
  const images = new Map();
  const explained = el("p", {class: "note"});

  const controls = el(
    "div", {class: "controls"},
    select(
      "Quantity", keyOptions(keys), state.key,
      (v) => {
        state.key = v, state.log = wantsLog();
        log.firstChild.checked = state.log;
        redrawAll();
      }),
    seeds.length > 1 ? select(
      "Seed", [["mean", "mean over seeds"], ...seeds.map((s) => [s, `seed ${s}`])], "mean",
      (v) => {
        state.seed = v, redrawAll();
      }) :
                       null);
  const log = checkbox("logarithmic", false, (v) => { state.log = v, redrawAll(); });
  const steps = slider(
    "Task", {min: 0, max: Math.max(0, d.tasks.length - 1), value: state.at, say: (i) => String(d.tasks[i]), wide: true},
    (i) => {
      state.at = i, redrawTask();
    });
  controls.append(log, steps);
  const wantsLog = () => {
    const found = extent(view.methods.flatMap((m) => rows(m).flatMap((r) => list(r.values).flat())));
    return Boolean(found && found[0] > 0 && found[1] / found[0] > 300);
  };
  state.log = wantsLog(), log.firstChild.checked = state.log;

  const panels = (kind, key, columns) =>
    view.shown()
      .map((m) => ({name: m.name, colour: m.colour, columns: columns(rows(m, kind, key))}))
      .filter((p) => p.columns.length);
  const heat = figure(view, "heat", {
    title: "Blocks over tasks",
    records: () => view.shown().flatMap(
      (m) =>
        rows(m).flatMap((r) => list(r.values).map((value, b) => ({method: m.name, task: r.x, block: b + 1, value})))),
    make: (width, still) => {
      scale = scale || scaleFor("blocks", state.key);
      const q = describe(state.key);
      const o = {
        panels: panels("blocks", state.key, columnsOf),
        rows: d.blocks,
        domain: [view.tasks > 1 ? 0.5 : 0, view.tasks + 0.5],
        scale,
        images,
        format: q.format,
        share: q.share,
        axes: `${q.label}: block (first at the bottom) over task`,
        cursor: task(),
        still,
        x_name: view.task_name,
        row_name: (r) => `block ${r + 1}`,
        pick: (x) => {
          state.at = d.tasks.indexOf(x), steps.set(state.at), redrawTask();
        }
      };
      if (!o.panels.length) return null;
      const svg = newSvg(width, heatHeight(o, width), `${q.label}: blocks over tasks`);
      drawHeat(svg, width, o);
      return svg;
    },
    caption: () => `${describe(state.key).label}, ${seedWords(state.seed)}. One colour scale for all methods (viridis` +
      `${state.log ? ", logarithmic" : ""}${
                     scale && scale.clipped ? "; the most extreme 1% at each end are clipped" : ""}). `
      +
      `The line marks task ${task()}; a click moves it. Grey: not recorded.`
  });

  const profile = lineFigure(view, "profile", {
    title: "Profile over blocks",
    height: 300,
    lines: () => {
      const q = describe(state.key);
      const line = (m) => {
        const row = rows(m).find((r) => r.x === task());
        return lineOf(m, row ? row.seeds.map((v) => pointsOf(v)) : [], state.band);
      };
      return {
        series: view.shown().map(line),
        x: {domain: [1, Math.max(2, d.blocks)], label: "block", name: (b) => `Block ${b}`},
        y: {
          label: `${q.label}, task ${task()}`,
          format: q.format,
          share: q.share,
          log: state.log,
          include: scale && !state.log ? scale.domain : []
        }
      };
    },
    caption: () =>
      `${describe(state.key).label} after task ${task()}, from the first block to the last, ${seedWords(state.seed)}. `
      +
      "The scale is the same for all tasks."
  });

  const over = lineFigure(view, "block-lines", {title: "The same over tasks", height: 320,
    controls: [select("Block", blockOptions(d.blocks), "mean", (v) => { state.block = v, over.redraw(); }),
               segments("Band", BANDS, state.band, (v) => { state.band = v, over.redraw(); })],
    lines: () => {
      const q = describe(state.key);
      return {
        series: view.shown().map(
          (m) => lineOf(m, d.overTasks(m, "blocks", state.key, state.seed, blockOf(state.block)), state.band)),
        x: {domain: view.domain, label: "task", name: view.task_name},
        cursor: task(),
        y: {label: `${q.label}, ${blockWords(state.block)}`, format: q.format, share: q.share, log: state.log}
      };
    },
    caption: () => `${describe(state.key).label}, ${blockWords(state.block)}. ${bandWords(view, state.band)}`});

  const heads = head_keys.length ? headFigure(view, d, state, task, panels, scaleFor) : null;
  const explain = () =>
    explained.replaceChildren(el("b", {}, describe(state.key).label), ". ", describe(state.key).help);
  const drawHeatAgain = heat.redraw;
  const redrawTask =
    lazily(() => [drawHeatAgain, profile.redraw, over.redraw, heads && heads.redraw].forEach((f) => f && f()));
  const forget = () => { scale = null, images.clear(); };
  const redrawAll = () => { forget(), explain(), redrawTask(); };
  heat.redraw = () => { forget(), drawHeatAgain(); };  // methods may have been switched, or the width changed
  explain();
  return [controls, explained, heat, profile, over, heads];
}

const seedWords = (seed) => (seed === "mean" ? "mean over seeds" : `seed ${seed}`);

/** At the task of the slider: one map a method, blocks over heads. */
function headFigure(view, d, state, task, panels, scaleFor) {
  const keys = d.keys("heads");
  const atTask = (rows) => {
    const row = rows.find((r) => r.x === task());
    const heads = row ? most(row.values.map((b) => list(b).length)) : 0;
    return range(heads).map((h) => ({x: h + 1, x0: h + 0.5, x1: h + 1.5, values: row.values.map((b) => list(b)[h])}));
  };
  const frame = figure(view, "heads", {title: "Heads",
    controls: keys.length > 1 ? [select("Quantity", keys.map((k) => [k, describe(k).label]), state.head,
                                        (v) => { state.head = v, frame.redraw(); })] : [],
    make: (width, still) => {
      const q = describe(state.head);
      const made = panels("heads", state.head, atTask);
      if (!made.length) return null;
      const heads = most(made.map((p) => p.columns.length));
      const o = {
        panels: made,
        rows: d.blocks || most(made[0].columns.map((c) => c.values.length)),
        domain: [0.5, heads + 0.5],
        scale: scaleFor("heads", state.head),
        format: q.format,
        share: q.share,
        still,
        axes: `${q.label}: block (first at the bottom) over head, task ${task()}`,
        x_name: (h) => `head ${h}`,
        row_name: (r) => `block ${r + 1}`
      };
      const svg = newSvg(width, heatHeight(o, width), `${q.label}: blocks over heads`);
      drawHeat(svg, width, o);
      return svg;
    },
    caption: () => `${describe(state.head).label} of every head after task ${task()}, ${seedWords(state.seed)}. `
      + `${describe(state.head).help} One colour scale for all tasks and methods.`});
  return frame;
}

/** Many small line charts. panels: [{title, title_colour, series}]; the rest of o is common to all. */
function drawPanels(svg, width, panels, o, top) {
  const across = clamp(Math.floor(width / 270), 1, Math.min(3, panels.length)), gap = 22;
  const w = (width - gap * (across - 1)) / across;
  panels.forEach((p, i) => {
    const g =
      put(svg, "g", {transform: `translate(${(i % across) * (w + gap)},${top + Math.floor(i / across) * PANEL})`});
    drawLines(g, w, PANEL - 14, {...o, ...p});
  });
}
const PANEL = 220;
const panelsHeight = (count, width) => Math.ceil(count / clamp(Math.floor(width / 270), 1, Math.min(3, count))) * PANEL;

/** A row of names and lines on top of a drawing; returns its height. */
function drawLegend(svg, width, items) {
  let x = 0, y = 12;
  for (const item of items) {
    const w = 34 + measureText(item.name, 12);
    if (x + w > width && x > 0) x = 0, y += 18;
    put(
      svg, "path", {d: `M${x},${y - 4}h18`, "stroke-width": 2.5, "stroke-dasharray": item.dash}, {stroke: item.colour});
    text(svg, x + 24, y, item.name, {colour: "var(--ink)"});
    x += w + 12;
  }
  return y + 14;
}

/** q, k, v, out, fc1, fc2 beside each other: a panel a module with lines for methods, or the other way round. */
function moduleFigure(view, d) {
  const found = new Map();  // "weight.drift" -> modules
  for (const key of d.keys("blocks")) {
    const [part, module, ...rest] = key.split(".");
    if (!rest.length) continue;
    const statistic = `${part}.${rest.join(".")}`;
    found.has(statistic) ? found.get(statistic).push(module) : found.set(statistic, [module]);
  }
  const statistics = [...found.keys()].filter((k) => found.get(k).length > 1).sort();
  if (!statistics.length) return null;
  const order = Object.keys(MODULES);
  const modules = (k) => [...found.get(k)].sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99));
  const state = {
    statistic: statistics.find((k) => k === "weight.drift") || statistics[0],
    panels: "modules",
    block: "mean",
    band: usualBand(view),
    log: false,
    same: true
  };
  const keyOf = (module) => state.statistic.replace(".", `.${module}.`);
  const line = (m, module, looks) =>
    ({...lineOf(m, d.overTasks(m, "blocks", keyOf(module), "mean", blockOf(state.block)), state.band), ...looks});
  const looks = (module, i) => ({key: module, name: module, colour: `var(--m${i % 6})`, dash: i > 5 ? "4 3" : null});
  const set = (key) => (value) => { state[key] = value, frame.redraw(); };
  const titled = (module) => (MODULES[module] ? `${module}: ${MODULES[module]}` : module);
  const panelsOf = () =>
    (state.panels === "modules" ?
       modules(state.statistic)
         .map((module) => ({title: titled(module), series: view.shown().map((m) => line(m, module, {}))})) :
       view.shown().map((m) => ({
                          title: shorten(m.name, 30),
                          title_colour: m.colour,
                          series: modules(state.statistic).map((module, i) => line(m, module, looks(module, i)))
                        })))
      .filter((p) => p.series.some((s) => s.line.length));
  const frame = figure(view, "modules", {
    title: "Modules compared",
    controls: [
      select("Statistic", statistics.map((k) => [k, describe(k).label]), state.statistic, set("statistic")),
      select("Block", blockOptions(d.blocks), "mean", set("block")),
      segments("A panel for each", [["modules", "module"], ["methods", "method"]], state.panels, set("panels")),
      segments("Band", BANDS, state.band, set("band")), checkbox("same scale", state.same, set("same")),
      checkbox("logarithmic", state.log, set("log"))
    ],
    make: (width, still) => {
      const q = describe(state.statistic), panels = panelsOf();
      if (!panels.length) return null;
      const legend = state.panels === "methods" ? panels[0].series : still ? view.shown() : [];
      const svg = newSvg(width, 10, `${q.label} of the modules over tasks`);
      const top = legend.length ? drawLegend(svg, width, legend) : 0;
      const height = top + panelsHeight(panels.length, width);
      svg.attr("height", height).attr("viewBox", `0 0 ${width} ${height}`);
      const common = {series: panels.flatMap((p) => p.series), y: {log: state.log}};
      drawPanels(
        svg, width, panels, {
          still,
          x: {domain: view.domain, label: "task", name: view.task_name},
          y: {
            label: q.short,
            format: q.format,
            share: q.share,
            log: state.log,
            include: state.same ? lineDomain(common) : []
          }
        },
        top);
      return svg;
    },
    caption: () => `${describe(state.statistic).label}, ${blockWords(state.block)}. ${describe(state.statistic).help} ${
      bandWords(view, state.band)}`
  });
  return frame;
}

/** Quantities of the whole network and of the methods themselves, over tasks. */
function wholeFigure(view, d) {
  const keys = [...d.keys("model").map((k) => ["model", k]), ...d.keys("scalars").map((k) => ["scalars", k])];
  if (!keys.length) return null;
  const state = {at: 0, band: usualBand(view), log: false};
  const group = (kind, title) =>
    [title,
     keys.map(([k, key], i) => [k, i, key]).filter(([k]) => k === kind).map(([
                                                                              , i, key
                                                                            ]) => [String(i), describe(key).label])];
  const options =
    [group("model", "Whole network"), group("scalars", "The methods\u2019 own")].filter((o) => o[1].length);
  const set = (key) => (value) => { state[key] = value, frame.redraw(); };
  const frame = lineFigure(view, "whole", {
    title: "Whole network and methods",
    height: 320,
    controls: [
      select("Quantity", options, "0", (v) => set("at")(Number(v))), segments("Band", BANDS, state.band, set("band")),
      checkbox("logarithmic", false, set("log"))
    ],
    lines: () => {
      const [kind, key] = keys[state.at], q = describe(key);
      return {
        series: view.shown()
                  .map((m) => lineOf(m, d.overTasks(m, kind, key, "mean", "mean"), state.band))
                  .filter((s) => s.line.length),
        x: {domain: view.domain, label: "task", name: view.task_name},
        y: {label: q.label, format: q.format, share: q.share, log: state.log}
      };
    },
    caption: () =>
      `${describe(keys[state.at][1]).label}. ${describe(keys[state.at][1]).help} ${bandWords(view, state.band)}`
  });
  return frame;
}

// ---------------------------------------------------------------------------------------------- spectra

function spectraSection(view) {
  const has = (s) => s.spectra && list(s.spectra.tasks).length;
  if (!anySeed(view, has)) return null;
  const everyone = view.methods.flatMap((m) => seedsOf(m, has));
  const keys = [...new Set(everyone.flatMap((s) => Object.keys(s.spectra.values || {})))].sort();
  const tasks = [...new Set(everyone.flatMap((s) => s.spectra.tasks))].sort((a, b) => a - b);
  if (!keys.length) return null;
  const blocks = most(everyone.flatMap((s) => Object.values(s.spectra.values).map((v) => list(list(v)[0]).length)));
  const state = {
    key: keys.includes("tokens") ? "tokens" : keys[0],
    at: tasks.length - 1,
    block: String(blocks - 1),
    relative: true,
    first: tasks.length > 1
  };
  const values = (s, task) => {
    const i = list(s.spectra.tasks).indexOf(task);
    const found = list(list(list((s.spectra.values || {})[state.key])[i])[Number(state.block)]).filter(finite);
    return pointsOf(state.relative && found[0] > 0 ? found.map((v) => v / found[0]) : found).filter((p) => p.y > 0);
  };
  const line = (m, task) => ({
    ...lineOf(m, seedsOf(m, has).map((s) => values(s, task)).filter((p) => p.length), "mean"),
    band: null,
    thin: null
  });
  const words = () => `${(PARTS[state.key.split(".")[0]] || worded(state.key)).toLowerCase()}${state.key.includes(".")
    ? " of " + state.key.split(".").slice(1).join(" ") : ""}, block ${Number(state.block) + 1}`;
  const set = (key) => (value) => { state[key] = value, redraw(); };
  const frame = lineFigure(view, "spectra", {
    title: "Singular values",
    bare: true,
    controls: [
      keys.length > 1 ? select("Matrix", keys.map((k) => [k, worded(k)]), state.key, set("key")) : null,
      select("Block", blockOptions(blocks).slice(1), state.block, set("block")),
      slider("Task", {min: 0, max: tasks.length - 1, value: state.at, say: (i) => String(tasks[i])}, set("at")),
      checkbox("relative to the largest", state.relative, set("relative")),
      tasks.length > 1 ? checkbox("first recorded task, dotted", state.first, set("first")) : null
    ].filter(Boolean),
    lines: () => {
      const now = view.shown().map((m) => line(m, tasks[state.at])).filter((s) => s.line.length);
      const before = state.first && state.at > 0 ?
        view.shown()
          .map((m) => ({...line(m, tasks[0]), faint: true, name: `${m.name}, task ${tasks[0]}`}))
          .filter((s) => s.line.length) :
        [];
      const count = most([...now, ...before].map((s) => s.line.length), 2);
      return {
        series: [...before, ...now],
        x: {domain: [1, count], label: "singular value, by rank", name: (i) => `Singular value ${i}`},
        y: {
          label: `Singular value${state.relative ? " / the largest" : ""}: ${words()}, task ${tasks[state.at]}`,
          format: number,
          log: true
        }
      };
    },
    caption: () => `Singular values of ${words()}, after task ${
                     tasks[state.at]}, mean over seeds, on a logarithmic scale. A line that drops `
      +
      `early means that few directions are in use.${
                     state.first && state.at > 0 ? ` Dotted: after task ${tasks[0]}.` : ""}`
  });
  const redraw = lazily(frame.redraw);
  return section(view, "spectra-section", "Spectra: singular values", frame);
}

// ---------------------------------------------------------------------------------------------- attention maps

function mapsSection(view) {
  const samples = list(view.group.samples);
  const has = (s) => s.maps && list(s.maps.tasks).length;
  if (!samples.length || !anySeed(view, has)) return null;
  const everyone = view.methods.flatMap((m) => seedsOf(m, has));
  const tasks = [...new Set(everyone.flatMap((s) => s.maps.tasks))].sort((a, b) => a - b);
  const blocks = most(everyone.map((s) => list(list(list(s.maps.values)[0])[0]).length));
  const state = {at: tasks.length - 1, block: String(blocks - 1), strength: 65};
  const map = (m, image) => {
    const s = seedsOf(m, has).find((seed) => seed.maps.tasks.includes(tasks[state.at]));
    if (!s) return null;
    return list(list(list(s.maps.values[s.maps.tasks.indexOf(tasks[state.at])])[image])[Number(state.block)]);
  };
  const set = (key) => (value) => { state[key] = value, redraw(); };
  const frame = figure(view, "maps", {
    title: "Attention maps",
    bare: true,
    controls: [
      slider("Task", {min: 0, max: tasks.length - 1, value: state.at, say: (i) => String(tasks[i])}, set("at")),
      select("Block", blockOptions(blocks).slice(1), state.block, set("block")),
      slider("Overlay", {min: 0, max: 100, value: state.strength, say: (v) => v + "%"}, set("strength"))
    ],
    make: (width) => {
      const rows = [
        {name: "image", overlay: () => null},
        ...view.shown()
          .filter((m) => m.seeds.some(has))
          .map((m) => ({name: m.name, colour: m.colour, overlay: (i) => map(m, i)}))
      ];
      if (rows.length < 2) return null;
      return drawMaps(width, samples, rows, state.strength / 100);
    },
    caption: () => `Attention of block ${Number(state.block) + 1} after task ${
                     tasks[state.at]}, mean over heads as the run recorded it, laid over `
      +
      "sample images. Each map is scaled to its own largest value: dark is little, bright is much."
  });
  const redraw = lazily(frame.redraw);
  return section(view, "maps-section", "Attention maps", frame);
}

/** Columns are images, rows methods; on a narrow page the names stand above the rows. */
function drawMaps(width, samples, rows, strength) {
  const wide = width >= 640, left = wide ? 150 : 0, gap = 6, above = wide ? 0 : 18;
  const size = Math.min(96, (width - left - gap * (samples.length - 1)) / samples.length);
  const step = size + gap + above;
  const svg = newSvg(width, Math.max(1, step * rows.length), "Attention over sample images");
  rows.forEach((row, r) => {
    const g = put(svg, "g", {class: "series", "data-method": row.name});
    const y = r * step + above;
    if (row.colour) put(g, "circle", {cx: 5, cy: wide ? y + size / 2 : y - 8, r: 4}, {fill: row.colour});
    text(
      g, row.colour ? 15 : 0, wide ? y + size / 2 + 4 : y - 4, shorten(row.name, wide ? 20 : 40),
      {colour: "var(--ink)", weight: 500});
    samples.forEach((sample, i) => {
      const box = (href, name) => put(
        g, "image",
        {class: name, x: left + i * (size + gap), y, width: size, height: size, preserveAspectRatio: "none", href},
        {"image-rendering": "pixelated"});
      box(sample.uri, "sample");
      const map = row.overlay(i);
      if (map && map.some(finite)) box(overlayImage(map), "overlay").attr("opacity", strength);
    });
  });
  return svg;
}

/** A square grid of attention as a picture, one pixel a patch. */
function overlayImage(map) {
  const grid = Math.round(Math.sqrt(map.length)), largest = most(map.filter(finite)) || 1;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = grid;
  const context = canvas.getContext("2d");
  map.forEach((v, i) => {
    context.fillStyle = INFERNO[clamp(Math.round(255 * (finite(v) ? v : 0) / largest), 0, 255)];
    context.fillRect(i % grid, Math.floor(i / grid), 1, 1);
  });
  return canvas.toDataURL();
}

// ---------------------------------------------------------------------------------------------- cost, configuration

function costSection(view) {
  const first = view.methods[0];
  const cost = (m, key) => summaryOf(m, key);
  const relative = (m, key) => {
    const [a, b] = [cost(m, key), cost(first, key)];
    return a && b && b.mean ? a.mean / b.mean : null;
  };
  const labels = {
    images_per_second: ["Images/s", number],
    wall_seconds: ["Wall time a run", duration],
    peak_bytes: ["Peak memory", bytes]
  };
  const present = COSTS.filter((k) => view.methods.some((m) => cost(m, k)));
  const columns = present.flatMap(
    (key) =>
      [{
        label: labels[key][0],
        value: (r) => (cost(r.m, key) || {}).mean,
        cell: (r) => {
          const s = cost(r.m, key);
          if (!s) return "\u2013";
          return [
            labels[key][1](s.mean),
            s.n > 1 && finite(s.deviation) && key === "images_per_second" ? el(
              "span", {class: "spread"}, ` \u00b1 ${number(s.mean >= 1000 ? Math.round(s.deviation) : s.deviation)}`) :
                                                                            null
          ].filter(Boolean);
        }
      },
       {
         label: "relative",
         title: `Relative to ${first.name}`,
         value: (r) => relative(r.m, key),
         cell: (r) => ratio(relative(r.m, key))
       }]);
  const costs = present.length ? table(view, "cost", {
    title: "Cost",
    columns: [{label: "Method", left: true, value: (r) => r.method, cell: (r) => nameCell(r.m)}, ...columns],
    rows: () => view.shown().map((m) => ({m, method: m.name})),
    records: () =>
      view.methods.map((m) => ({
                         method: m.name,
                         ...Object.assign({}, ...present.map((k) => ({
                                                               [k]: (cost(m, k) || {}).mean,
                                                               [`${k}_deviation`]: (cost(m, k) || {}).deviation,
                                                               [`${k}_relative`]: relative(m, k)
                                                             })))
                       })),
    caption: () => `Means over seeds; \u201crelative\u201d is against ${
      first.name}. Speed counts training only; it depends on the machine and what else ran there.`
  }) :
                                 null;
  return section(view, "cost-section", "Cost and runs", costs, runTable(view));
}

function runTable(view) {
  const rows = view.methods.flatMap((m) => m.seeds.map((s) => ({m, s, method: m.name})));
  const accuracy = (r) => seedSummary(r.s, "aat");
  const done = (r) => list(r.s.measures.task_accuracy).length;
  const folder = (r) => list(view.group.folders)[r.s.folder] || "\u2013";
  const made = table(view, "runs", {
    title: "Every run",
    columns: [
      {label: "Method", left: true, value: (r) => r.method, cell: (r) => nameCell(r.m)},
      {label: "Seed", value: (r) => r.s.seed, cell: (r) => String(r.s.seed)},
      {label: "Status", left: true, value: (r) => r.s.status, cell: (r) => r.s.status || "\u2013"},
      {label: "Tasks", value: done, cell: (r) => whole(done(r))},
      {label: "AAT (%)", value: accuracy, cell: (r) => percentBare(accuracy(r))},
      {label: "Updates", value: (r) => r.s.updates, cell: (r) => whole(r.s.updates)}, {
        label: "Skipped",
        title: "Updates left out because a gradient was not finite",
        value: (r) => r.s.skipped,
        cell: (r) => whole(r.s.skipped)
      },
      {label: "Wall time", value: (r) => r.s.wall_seconds, cell: (r) => duration(r.s.wall_seconds)},
      {label: "Folder", left: true, value: folder, cell: (r) => el("code", {}, folder(r))},
      {label: "Note", left: true, wrap: true, value: (r) => r.s.note, cell: (r) => r.s.note || ""}
    ],
    rows: () => rows.filter((r) => !view.hidden.has(r.method)),
    records: () => rows.map((r) => ({
                              method: r.method,
                              seed: r.s.seed,
                              status: r.s.status,
                              tasks: done(r),
                              aat: accuracy(r),
                              updates: r.s.updates,
                              skipped: r.s.skipped,
                              images_per_second: r.s.images_per_second,
                              wall_seconds: r.s.wall_seconds,
                              peak_bytes: r.s.peak_bytes,
                              folder: folder(r),
                              note: r.s.note
                            }))
  });
  return el("details", {}, el("summary", {}, `Every run (${rows.length})`), made);
}

function configurationSection(view) {
  const g = view.group, folders = list(g.folders);
  const methods = table(view, "methods", {
    title: "Methods",
    columns: [
      {label: "Method", left: true, value: (r) => r.method, cell: (r) => nameCell(r.m)}, {
        label: "Settings",
        left: true,
        wrap: true,
        value: (r) => r.settings,
        cell: (r) => el("code", {}, r.settings || "\u2013")
      }
    ],
    rows: () => view.methods.map((m) => ({m, method: m.name, settings: m.settings})),
    records: () => view.methods.map((m) => ({method: m.name, settings: m.settings}))
  });
  const differences = list(g.differences);
  const differing = differences.length ? table(view, "differences", {
    title: "What differs between folders",
    columns: [
      {label: "Setting", left: true, value: (r) => r.key, cell: (r) => el("code", {}, r.key)},
      ...folders.map((f, i) => ({
                       label: f,
                       left: true,
                       wrap: true,
                       value: (r) => list(r.values)[i],
                       cell: (r) => el("code", {}, String(list(r.values)[i] ?? "\u2013"))
                     }))
    ],
    rows: () => differences,
    records: () =>
      differences.map((r) => ({setting: r.key, ...Object.fromEntries(folders.map((f, i) => [f, list(r.values)[i]]))}))
  }) :
                                         null;
  const config = list(g.config).map(([key, value]) => ({key, value}));
  const common = config.length ? table(view, "config", {
    title: folders.length > 1 ? "Common to all folders" : "Settings",
    columns: [
      {label: "Setting", left: true, value: (r) => r.key, cell: (r) => el("code", {}, r.key)},
      {label: "Value", left: true, wrap: true, value: (r) => r.value, cell: (r) => el("code", {}, String(r.value))}
    ],
    rows: () => config,
    records: () => config.map((r) => ({setting: r.key, value: r.value}))
  }) :
                                 null;
  const shown = folders.length ? el("p", {class: "meta"}, plural(folders.length, "folder"), ": ",
    folders.flatMap((f, i) => [i ? ", " : "", el("code", {}, f)])) : null;
  return section(view, "configuration", "Configuration", shown, methods, differing, common);
}

// ---------------------------------------------------------------------------------------------- the page

function section(view, id, title, ...content) {
  const kept = content.filter(Boolean);
  if (!kept.length) return null;
  const name = `g${view.index}-${id}`;
  const node =
    el("section", {id: name, "aria-labelledby": `${name}-title`}, el("h3", {id: `${name}-title`}, title), kept);
  node.title_text = title;
  return node;
}

function groupNode(view, alone) {
  const g = view.group;
  const seeds = new Set(view.methods.flatMap((m) => m.seeds.map((s) => s.seed)));
  const sections =
    [
      accuracySection, comparisonSection, curvesSection, diagnosisSection, spectraSection, mapsSection, costSection,
      configurationSection
    ].map((make) => make(view))
      .filter(Boolean);
  const counts = [plural(view.methods.length, "method"), plural(seeds.size, "seed"), plural(view.tasks, "task"),
                  finite(g.chance) ? `chance ${percent(g.chance)}` : ""].filter(Boolean).join(" \u00b7 ");
  const contents = el("nav", {"aria-label": `Sections of ${g.name}`}, el("ul", {class: "toc"},
    sections.map((s) => el("li", {}, el("a", {href: `#${s.id}`}, s.title_text)))));
  return el(
    "section", {class: "group", id: `group-${view.index}`, "aria-labelledby": `group-${view.index}-title`},
    alone ? null : el("p", {class: "kicker"}, `Protocol ${view.index + 1}`),
    el("h2", {id: `group-${view.index}-title`}, g.name || "Runs"), el("p", {class: "meta"}, counts),
    noticeBox("Please note", list(g.notices)), el("p", {class: "lead"}, inWords(view)), contents, methodBar(view),
    sections);
}

/** The data; numbers that JSON cannot hold (NaN, Infinity) count as missing. */
function readData() {
  const content = document.getElementById("data").textContent;
  try {
    return JSON.parse(content);
  } catch (error) {
    return JSON.parse(content.replace(/([[:,]\s*)-?(?:NaN|nan|Infinity|inf)(?=\s*[,\]}])/g, "$1null"));
  }
}

function start() {
  const page = document.getElementById("page");
  const data = readData();
  const groups = list(data.groups);
  const views = groups.map(viewOf);
  document.title = data.title ? `${data.title} \u2013 evergrad report` : "evergrad report";
  const made = [data.evergrad ? `evergrad ${data.evergrad}` : "", data.written ? `written ${data.written}` : ""]
                 .filter(Boolean)
                 .join(", ");
  page.replaceChildren(
    ...
      [el(
         "header", {}, el("p", {class: "kicker"}, "Loss of plasticity on a stream of tasks"),
         el("h1", {}, data.title || "Report"), el("p", {class: "meta"}, made),
         groups.length > 1 ? el(
           "p", {class: "note"},
           `${groups.length} protocols; each has its own section, and nothing is averaged or compared across them.`) :
                             null,
         groups.length > 1 ? el(
           "nav", {"aria-label": "Protocols"},
           el("ul", {class: "toc"}, groups.map((g, i) => el("li", {}, el("a", {href: `#group-${i}`}, g.name))))) :
                             null),
       noticeBox("Problems while reading the runs", list(data.problems)),
       ...views.map((v) => groupNode(v, views.length === 1)),
       groups.length ? null : el("p", {class: "lead"}, "There is nothing to report: no run was found."),
  ].filter(Boolean));
  keepDrawn(page, views);
}

/** Draws everything now, when the page's width changes, and anew for paper. */
function keepDrawn(page, views) {
  const inner = () => {
    const style = getComputedStyle(page);
    return Math.max(260, page.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  };
  let drawn = 0;
  const drawAt = (width) => {
    drawn = width;
    for (const v of views) v.width = width, v.redraw();
  };
  drawAt(inner());
  addEventListener("resize", lazily(() => { if (inner() !== drawn) drawAt(inner()); }));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((d) => { d.open = true, d.dataset.closed = "yes"; });
    drawAt(760);
  });
  addEventListener("afterprint", () => {
    document.querySelectorAll("details[data-closed]").forEach((d) => { d.open = false, delete d.dataset.closed; });
    drawAt(inner());
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  addEventListener("scroll", hideTip, {passive: true});
}

if (!d3.scaleLinear || !d3.create) {
  document.getElementById("page").textContent =
    "This page was written with too old a version of the library that draws its figures (d3; version 5 is needed).";
} else start();
