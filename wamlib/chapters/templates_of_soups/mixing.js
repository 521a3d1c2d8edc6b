// The mixing figure: two rows of weights mixed by the reader.
const { classes, alphas, mixtures } = data;
const [channels, height, width] = data.shape;
const last = alphas.length - 1;
// Own classes differ from the rest by sign and dash as well as by colour. \uFE0E: text, not emoji.
const LOOKS = [
  { name: "first", sign: "\u25A0\uFE0E", colour: "#0173B2", dash: "none", words: "solid" },
  { name: "second", sign: "\u25C6\uFE0E", colour: "#DE8F05", dash: "6 4", words: "dashed" },
];

// ---- Numbers ----
// Pictures are little-endian 16-bit integers with one scale each: exact to 1/32767 of the largest weight.
function unpack({ scales, values }) {
  const raw = bytes(values);
  const view = new DataView(raw.buffer);
  const size = channels * height * width;
  return scales.map((scale, k) =>
    Float64Array.from({ length: size }, (_, i) => scale * view.getInt16(2 * (k * size + i), true)));
}

function centre(picture) {
  const mean = picture.reduce((sum, value) => sum + value, 0) / picture.length;
  return picture.map((value) => value - mean);
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
// Pearson correlation over all pixels and channels; null where a picture is flat and has none.
function correlation(a, b) {
  const [x, y] = [centre(a), centre(b)];
  const norms = Math.sqrt(dot(x, x) * dot(y, y));
  return norms > 1e-12 ? dot(x, y) / norms : null;
}

const stacks = data.stacks.map(unpack);
const means = stacks[data.means];
const colours = bytes(data.colours);

// ---- Words ----
const digits = Math.max(2, ...alphas.map((alpha) => (String(alpha).split(".")[1] || "").length));
const alphaText = (stop) => `alpha = ${alphas[stop].toFixed(digits)}`;
// ---- What is chosen ----
const control = { mixture: part("mixture"), first: part("first"), second: part("second"), alpha: part("alpha") };

// One line per own class: { label, values at every stop }. A pair picked backwards is read backwards.
function lines(mixture, i, j) {
  if (mixture.kind === "members") return [{ label: "accuracy", values: mixture.accuracy }];
  const [low, high] = mixture.recalls[i < j ? `${i},${j}` : `${j},${i}`];
  const values = i < j ? [low, high] : [high.slice().reverse(), low.slice().reverse()];
  return [i, j].map((k, side) => ({ label: `recall of ${classes[k]}`, values: values[side] }));
}

function choice() {
  const mixture = mixtures[control.mixture.value];
  const [i, stop] = [Number(control.first.value), Number(control.alpha.value)];
  const members = mixture.kind === "members";
  const j = members ? i : Number(control.second.value);
  const [from, to] = [stacks[mixture.ends[0]][i], stacks[mixture.ends[1]][j]];
  const picture = from.map((value, p) => (1 - alphas[stop]) * value + alphas[stop] * to[p]);
  return { mixture, members, i, j, own: members ? [i] : [i, j], stop, picture, lines: lines(mixture, i, j) };
}

// ---- Panels ----
function drawPicture({ picture }) {
  const canvas = part("canvas");
  [canvas.width, canvas.height] = [width, height];
  const size = height * width;
  const shown = new Float64Array(size); // colour pictures as the mean of their channels, as in picture_grid
  picture.forEach((value, p) => { shown[p % size] += value / channels; });
  const limit = shown.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const image = new ImageData(width, height);
  shown.forEach((value, p) => {
    const at = 3 * Math.min(255, Math.floor(128 * (1 + value / limit)));
    image.data.set([colours[at], colours[at + 1], colours[at + 2], 255], 4 * p);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawBars({ own }, correlations) {
  part("bars").replaceChildren(...correlations.map((r, k) => {
    const look = LOOKS[own.indexOf(k)];
    const row = element("div", `mixing-row${look ? ` mixing-own mixing-${look.name}` : ""}`);
    row.setAttribute("role", "listitem");
    const track = element("span", "mixing-track");
    const bar = element("span", "mixing-bar");
    bar.style.left = `${50 + 50 * Math.min(0, r)}%`;
    bar.style.width = `${50 * Math.abs(r)}%`;
    track.append(bar);
    const value = element("span", "mixing-value", r === null ? "none" : number(r, 2));
    value.dataset.r = r;
    row.append(element("span", "mixing-name", (look ? `${look.sign} ` : "") + classes[k]), track, value);
    return row;
  }));
}

// Percent axis: 0 to 100 for recalls; for accuracies the nearest round numbers, at least 2 points apart.
function percentAxis(shown, members) {
  if (!members) return { low: 0, high: 100, step: 25 };
  const values = shown[0].values;
  const middle = (Math.min(...values) + Math.max(...values)) / 2;
  const [least, most] = [Math.min(middle - 1, ...values), Math.max(middle + 1, ...values)];
  const floor = (step) => Math.max(0, Math.floor(least / step) * step);
  const ceil = (step) => Math.min(100, Math.ceil(most / step) * step);
  const step = [0.5, 1, 2, 5, 10].find((size) => (ceil(size) - floor(size)) / size <= 5) || 25;
  return { low: floor(step), high: ceil(step), step };
}

function drawChart({ lines: shown, members, own, stop }) {
  const svg = part("chart");
  const { low, high, step } = percentAxis(shown, members);
  const [left, right, top, bottom] = [34, 268, 14, 150];
  const x = (alpha) => left + (right - left) * alpha;
  const y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low);
  const add = (tag, attributes, text) => drawn(svg, tag, attributes, text);
  svg.replaceChildren();
  for (let tick = low; tick <= high + 1e-9; tick += step) {
    add("line", { class: "live-grid", x1: left, x2: right, y1: y(tick), y2: y(tick) });
    add("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick));
  }
  const below = (alpha, drop, text) => add("text", { x: x(alpha), y: bottom + drop, "text-anchor": "middle" }, text);
  [0, 0.5, 1].forEach((alpha) => below(alpha, 17, String(alpha)));
  below(0.5, 34, "Mixing weight alpha");
  add("line", { class: "live-here", x1: x(alphas[stop]), x2: x(alphas[stop]), y1: top, y2: bottom });
  shown.forEach(({ values }, side) => {
    const { colour, dash } = LOOKS[side];
    const path = values.map((value, s) => `${x(alphas[s])},${y(value)}`).join(" ");
    add("polyline", { class: "live-line", points: path, stroke: colour, "stroke-dasharray": dash });
    const [atX, atY] = [x(alphas[stop]), y(values[stop])];
    const turn = side ? `rotate(45 ${atX} ${atY})` : "";
    const square = { x: atX - 5, y: atY - 5, width: 10, height: 10 };
    add("rect", { class: "live-at", ...square, fill: colour, transform: turn });
    // Numbers of two lines stay apart: the upper one stands above its marker, the lower one below.
    const other = shown.length > 1 ? shown[1 - side].values[stop] : -1;
    const above = values[stop] > other || (values[stop] === other && side === 0);
    const [shift, anchor] = alphas[stop] < 0.5 ? [9, "start"] : [-9, "end"];
    const place = { x: atX + shift, y: Math.min(bottom - 4, atY + (above ? -9 : 19)), "text-anchor": anchor };
    add("text", { class: "live-at-value", ...place }, number(values[stop], 1));
  });
  const head = part("chart-head");
  head.replaceChildren(members ? "Test accuracy (%)" : "Recall (%): ");
  if (members && low > 0) head.append(`, axis cut at ${low}`);
  if (!members) own.forEach((k, side) => {
    const sign = element("span", "", LOOKS[side].sign);
    sign.style.color = LOOKS[side].colour;
    head.append(side ? ", " : "", sign, ` ${classes[k]} (${LOOKS[side].words})`);
  });
}

function say({ lines: shown, members, i, j, stop }, correlations) {
  const better = (r, most) => r !== null && (most < 0 || r > correlations[most]);
  const best = correlations.reduce((most, r, k) => (better(r, most) ? k : most), -1);
  const match = best < 0 ? "the picture is flat and matches no class mean"
    : `the picture matches the mean of ${classes[best]} best (r = ${number(correlations[best], 2)})`;
  const numbers = shown.map(({ label, values }, side) => {
    const base = members ? (values[0] + values[last]) / 2 : values[side ? last : 0];
    const against = members ? "the mean of the two ends" : `alpha = ${side}`;
    const change = number(values[stop] - base, 1, "+");
    return `${label} ${number(values[stop], 1)} % (${change} points against ${against})`;
  });
  part("says").textContent = `${alphaText(stop)}: ${numbers.join(", ")}; ${match}.`;
  const what = members ? classes[i] : `(1 \u2212 alpha) ${classes[i]} + alpha ${classes[j]}`;
  part("template-head").textContent = members ? `Template of ${what}` : what;
  part("canvas").setAttribute("aria-label", `Template, ${what}, at ${alphaText(stop)}: ${match}.`);
  part("left-end").textContent = `0: ${members ? "first member" : classes[i]}`;
  part("right-end").textContent = `1: ${members ? "second member" : classes[j]}`;
}

function draw() {
  const members = mixtures[control.mixture.value].kind === "members";
  if (!members && control.first.value === control.second.value) { // possible after a mixture of members
    control.second.value = (Number(control.first.value) + 1) % classes.length;
  }
  part("second-box").hidden = members;
  part("first-label").textContent = members ? "Class" : "Class at alpha = 0";
  // A class cannot be mixed with itself: what one list has chosen, the other does not offer.
  for (const [here, there] of [[control.first, control.second], [control.second, control.first]]) {
    for (const option of here.options) option.disabled = !members && option.value === there.value;
  }
  const chosen = choice();
  const correlations = means.map((mean) => correlation(chosen.picture, mean));
  control.alpha.setAttribute("aria-valuetext", alphaText(chosen.stop));
  drawPicture(chosen);
  drawBars(chosen, correlations);
  drawChart(chosen);
  say(chosen, correlations);
}

fill(control.mixture, mixtures.map((mixture) => mixture.title));
fill(control.first, classes);
fill(control.second, classes);
control.second.value = Math.min(1, classes.length - 1);
root.style.setProperty("--mixing-names", `${0.65 * Math.max(...classes.map((name) => name.length)) + 1.3}em`);
const omitted = data.n_classes > classes.length;
if (omitted) part("omitted").textContent = `${classes.length} of ${data.n_classes} classes are shown.`;
start(Object.values(control), draw);
