// What the scripts of interactive figures share. Each is wrapped together with this text in a function of its own: it
// reads its fragment's data, loads nothing, and leaves no global.
const root = document.currentScript.closest(".live-figure");
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const data = JSON.parse(part("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// A true minus sign, and neither +0.0 nor −0.0.
function number(value, places, plus = "") {
  const text = Math.abs(value).toFixed(places);
  if (Number(text) === 0) return text;
  return (value < 0 ? "\u2212" : plus) + text;
}

const fill = (select, names) => names.forEach((name, index) => select.add(new Option(name, index)));

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function drawn(svg, tag, attributes, text) {
  const made = document.createElementNS(svg.namespaceURI, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  svg.append(made);
  return made;
}

// Round numbers that span low to high in at most `most` steps: the first and the last lie up to a step outside.
function roundTicks(low, high, most = 5) {
  const power = 10 ** Math.floor(Math.log10((high - low || 1) / most));
  const step = [1, 2, 5, 10, 20].map((one) => one * power).find((one) => Math.ceil(high / one) - Math.floor(low / one) <= most);
  const ticks = [];
  for (let k = Math.floor(low / step); k <= Math.ceil(high / step); k += 1) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

// Draw once, then at every change of a control. Only a figure that has been drawn takes the place of the static one.
function start(controls, draw) {
  controls.forEach((input) => input.addEventListener("input", draw));
  draw();
  part("static").hidden = true;
  part("live").hidden = false;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", part("static").querySelector("img").alt);
}
