// The plane through three members: a map of measured errors, and a point that the reader moves over it.
const { planes, letters, colours, bands } = data;
const control = { plane: part("plane"), u: part("u"), v: part("v") };
const canvas = part("canvas");

function choice() {
  const plane = planes[control.plane.value];
  const [i, j] = [Number(control.u.value), Number(control.v.value)];
  const [u, v] = [plane.us[i], plane.vs[j]];
  // The plane's point as a sum of members: C is at (p, q), B at (1, 0), A at the origin.
  const [p, q] = plane.members[2];
  const c = v / q;
  const b = u - c * p;
  return { plane, i, j, u, v, shares: [1 - b - c, b, c], error: plane.errors[j * plane.us.length + i] };
}

const mean = (plane) => plane.members.reduce((sum, [, , error]) => sum + error / 3, 0);

function bandName(k) {
  if (k === 0) return `below ${bands[0]}`;
  return k === bands.length ? `above ${bands[k - 1]}` : `${bands[k - 1]} to ${bands[k]}`;
}

function drawMap({ plane }) {
  [canvas.width, canvas.height] = [plane.us.length, plane.vs.length];
  const image = new ImageData(canvas.width, canvas.height);
  plane.bands.forEach((band, at) => {
    const [row, column] = [Math.floor(at / canvas.width), at % canvas.width];
    const colour = [1, 3, 5].map((k) => parseInt(colours[band].slice(k, k + 2), 16));
    image.data.set([...colour, 255], 4 * ((canvas.height - 1 - row) * canvas.width + column)); // v grows upwards
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The map's pixels are points of the grid, so its edge lies half a step outside of the outermost ones.
function frame(plane) {
  const ends = (values) => {
    const half = (values[1] - values[0]) / 2;
    return [values[0] - half, values[values.length - 1] + half];
  };
  const [[left, right], [low, high]] = [ends(plane.us), ends(plane.vs)];
  return { left, right, low, high, width: 300, height: (300 * (high - low)) / (right - left) };
}

function drawMarks({ plane, u, v }) {
  const svg = part("marks");
  const { left, right, low, high, width, height } = frame(plane);
  const at = ([a, b]) => [(width * (a - left)) / (right - left), (height * (high - b)) / (high - low)];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  canvas.style.aspectRatio = `${width} / ${height}`;
  svg.replaceChildren();
  drawn(svg, "polygon", { class: "plane-triangle", points: plane.members.map((member) => at(member).join(",")).join(" ") });
  plane.members.forEach((member, k) => {
    const [x, y] = at(member);
    drawn(svg, "circle", { class: "plane-member", cx: x, cy: y, r: 6 });
    drawn(svg, "text", { x: x + 9, y: y - 7 }, letters[k]);
  });
  const [x, y] = at(plane.soup);
  drawn(svg, "rect", { class: "plane-soup", x: x - 5, y: y - 5, width: 10, height: 10 });
  drawn(svg, "text", { x: x + 9, y: y - 7 }, "soup");
  const [hereX, hereY] = at([u, v]);
  drawn(svg, "path", { class: "plane-here", d: `M${hereX - 12} ${hereY}H${hereX + 12}M${hereX} ${hereY - 12}V${hereY + 12}` });
}

function drawKey({ plane, i, j }) {
  const present = new Set(plane.bands);
  const own = plane.bands[j * plane.us.length + i];
  part("key").replaceChildren(...colours.map((colour, k) => {
    const row = element("div", `plane-row${k === own ? " plane-own" : ""}`);
    row.setAttribute("role", "listitem");
    row.hidden = !present.has(k);
    const swatch = element("span", "plane-swatch");
    swatch.style.background = colour;
    row.append(swatch, element("span", "", bandName(k) + (k === own ? " (here)" : "")));
    return row;
  }));
}

function say({ plane, shares, error }) {
  const sum = shares.map((share, k) => `${k ? (share < 0 ? " \u2212 " : " + ") : ""}${number(k ? Math.abs(share) : share, 2)} ${letters[k]}`).join("");
  const inside = shares.every((share) => share >= -1e-9) ? "between the three" : "outside of the triangle";
  part("says").textContent = `${sum}, ${inside}: test error ${number(error, 1)} %, `
    + `${number(error - mean(plane), 1, "+")} points against the mean of the three members (${number(mean(plane), 1)} %). `
    + `Their soup, in the middle: ${number(plane.soup[2], 1)} %.`;
  canvas.setAttribute("aria-label", `Map of the test error over the plane through ${letters.join(", ")}; ${plane.title}.`);
  control.u.setAttribute("aria-valuetext", sum);
  control.v.setAttribute("aria-valuetext", sum);
}

function draw() {
  const chosen = choice();
  drawMap(chosen);
  drawMarks(chosen);
  drawKey(chosen);
  say(chosen);
}

function move(event) {
  const box = canvas.getBoundingClientRect();
  const step = (offset, size, count) => Math.max(0, Math.min(count - 1, Math.floor((count * offset) / size)));
  control.u.value = step(event.clientX - box.left, box.width, canvas.width);
  control.v.value = canvas.height - 1 - step(event.clientY - box.top, box.height, canvas.height);
  draw();
}

canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
fill(control.plane, planes.map(({ title }) => title));
part("plane-box").hidden = planes.length < 2;
start(Object.values(control), draw);
