// The walk along an axis: curves of one choice, a mark at the stop that the slider is at, and its numbers beside them.
const { x, facets, quantities, lines, difference, cells } = data;
const control = { quantity: part("quantity"), stop: part("stop") };
const choices = facets.map(({ name }) => part(name));
const plain = (value) => String(value).replace("-", "\u2212");
const place = (value) => (x.log ? Math.log10(value) : value);

// ---- Marks: each combination has a shape of its own, so that a grey print loses nothing ----
const SHAPES = {
  s: "M-4-4H4V4H-4Z", D: "M0-5L5 0L0 5L-5 0Z", "^": "M0-5L5 4H-5Z", v: "M0 5L5-4H-5Z", ">": "M5 0L-4-5V5Z", "<": "M-5 0L4-5V5Z", "*": "M0-6L2-2L6-2L3 1L4 6L0 3L-4 6L-3 1L-6-2L-2-2Z",
  o: "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z", P: "M-2-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z", X: "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
};
SHAPES.x = SHAPES.X;
const mark = (svg, line, at, size = 1) => drawn(svg, "path", {
  class: "live-at", d: SHAPES[line.marker], fill: line.colour, transform: `translate(${at}) scale(${size})`,
});

function choice() {
  const key = choices.map((select) => select.value).join(",");
  const curves = cells[key] ? cells[key][control.quantity.value] : null;
  return { curves, quantity: quantities[control.quantity.value], stop: Number(control.stop.value) };
}

// ---- Words ----
// "81.2 % [80.4, 82.0]"; signed for a difference.
function words(entry, { digits, unit }, plus = "") {
  if (!entry) return "not measured";
  const [mean, low, high] = entry;
  const interval = low === null ? "" : ` [${number(low, digits, plus)}, ${number(high, digits, plus)}]`;
  return `${number(mean, digits, plus)}${unit ? ` ${unit}` : ""}${interval}`;
}

const least = (quantity) => ({ ...quantity, unit: quantity.difference });
const here = (stop) => `${x.name} = ${plain(x.values[stop])}`;

function say({ curves, quantity, stop }) {
  control.stop.setAttribute("aria-valuetext", here(stop));
  if (!curves) {
    part("says").textContent = `${here(stop)}: not measured for this choice.`;
    return;
  }
  const parts = lines.map((line, k) => (curves[k][stop] ? `${line.name} ${words(curves[k][stop], quantity)}` : "")).filter(Boolean);
  const gap = difference.length ? curves[lines.length][stop] : null;
  const last = gap ? `; ${difference[0]} minus ${difference[1]}: ${words(gap, least(quantity), "+")}` : "";
  part("says").textContent = `${here(stop)}, ${quantity.label}: ${parts.join(", ")}${last}.`;
}

// ---- Panels ----
function drawValues({ curves, quantity, stop }) {
  part("values-head").textContent = `At ${here(stop)}`;
  part("values").replaceChildren(...lines.map((line, k) => {
    const row = element("div", "walk-row");
    row.setAttribute("role", "listitem");
    const sign = document.createElementNS(part("chart").namespaceURI, "svg");
    sign.setAttribute("viewBox", "-20 -7 40 14");
    sign.setAttribute("aria-hidden", "true");
    drawn(sign, "line", { x1: -20, x2: 20, y1: 0, y2: 0, class: "live-line", stroke: line.colour, "stroke-dasharray": line.dash });
    mark(sign, line, "0 0");
    const value = element("span", "walk-value", curves ? words(curves[k][stop], quantity) : "not measured");
    row.append(sign, element("span", "", line.name), value);
    return row;
  }));
}

function drawChart({ curves, quantity, stop }) {
  const svg = part("chart");
  svg.replaceChildren();
  part("head").textContent = quantity.label;
  const entries = curves ? lines.flatMap((_, k) => curves[k]).filter(Boolean) : [];
  if (!entries.length) return;
  const [left, right, top, bottom] = [46, 450, 12, 222];
  const all = entries.flat().filter((value) => value !== null);
  const within = (value) => Math.min(quantity.high ?? Infinity, Math.max(quantity.low ?? -Infinity, value));
  const ticks = roundTicks(within(Math.min(...all)), within(Math.max(...all)));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const [from, to] = [place(x.values[0]), place(x.values[x.values.length - 1])];
  const across = (value) => left + 8 + ((right - left - 16) * (place(value) - from)) / (to - from);
  const up = (value) => bottom - ((bottom - top) * (Math.min(high, Math.max(low, value)) - low)) / (high - low || 1);
  for (const tick of ticks) {
    drawn(svg, "line", { class: "live-grid", x1: left, x2: right, y1: up(tick), y2: up(tick) });
    drawn(svg, "text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, plain(tick));
  }
  let free = -Infinity; // labels of close stops would lie on each other
  for (const value of x.values) {
    if (across(value) - free < 30) continue;
    drawn(svg, "text", { x: across(value), y: bottom + 18, "text-anchor": "middle" }, plain(value));
    free = across(value);
  }
  drawn(svg, "text", { x: (left + right) / 2, y: bottom + 40, "text-anchor": "middle" }, x.label + (x.log ? " (log axis)" : ""));
  drawn(svg, "line", { class: "live-here", x1: across(x.values[stop]), x2: across(x.values[stop]), y1: top, y2: bottom });
  lines.forEach((line, k) => {
    const points = x.values.map((value, s) => [across(value), curves[k][s], s]).filter(([, entry]) => entry);
    const path = points.map(([at, [mean]]) => `${at},${up(mean)}`).join(" ");
    drawn(svg, "polyline", { class: "live-line", points: path, stroke: line.colour, "stroke-dasharray": line.dash });
    for (const [at, [mean, bottomEnd, topEnd], s] of points) {
      if (bottomEnd !== null) drawn(svg, "line", { class: "live-line", x1: at, x2: at, y1: up(bottomEnd), y2: up(topEnd), stroke: line.colour });
      mark(svg, line, `${at} ${up(mean)}`, s === stop ? 1.4 : 0.9);
    }
  });
}

function draw() {
  const chosen = choice();
  drawChart(chosen);
  drawValues(chosen);
  say(chosen);
}

fill(control.quantity, quantities.map(({ label }) => label));
facets.forEach(({ words: names }, k) => fill(choices[k], names));
part("quantity-box").hidden = quantities.length < 2;
choices.forEach((select, k) => { part(`${facets[k].name}-box`).hidden = select.options.length < 2; });
part("left-end").textContent = plain(x.values[0]);
part("right-end").textContent = plain(x.values[x.values.length - 1]);
start([control.quantity, control.stop, ...choices], draw);
