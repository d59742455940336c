// Sorts the table, hides methods, shows one panel at a time, and names what is pointed at. Everything is on the page
// already, also for those whose browser runs no script; text is only ever set as text.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function make(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

// Sorting

function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const column = [...head.parentNode.children].indexOf(head);
  const now = head.getAttribute("aria-sort");
  const opposite = { ascending: "descending", descending: "ascending" };
  const order = now ? opposite[now] : head.dataset.first;
  all("th[aria-sort]", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.children[column].dataset.value;
  const compared = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // what is not known is last
    return sign * (head.classList.contains("who") ? x.localeCompare(y) : Number(x) - Number(y));
  };
  body.append(...[...body.rows].sort(compared));
}

all("th .sorts").forEach((name) => {
  const button = make("button", name.textContent, { type: "button", className: "sorts" });
  button.addEventListener("click", () => sortBy(button.closest("th")));
  name.replaceWith(button);
});

// Hiding methods

const switches = all(".switches input");
const isOff = (number) => switches.some((one) => one.value === String(number) && !one.checked);

function frontOf(dots) {
  const order = [...dots].sort((a, b) => a.dataset.x - b.dataset.x || a.dataset.y - b.dataset.y);
  let best = Infinity;
  return order.filter((dot) => Number(dot.dataset.y) < best && ((best = Number(dot.dataset.y)), true));
}

function redrawFront(paper) {
  const line = paper.querySelector(".front");
  if (!line) return;
  const front = frontOf(all(".dot", paper).filter((dot) => !isOff(dot.dataset.method)));
  const [first, ...later] = front.map((dot) => dot.dataset);
  const steps = later.map((place) => `H${place.x}V${place.y}`).join("");
  line.setAttribute("d", first ? `M${first.x} ${first.y}${steps}H${paper.dataset.right}` : "");
  const numbers = new Set(front.map((dot) => dot.dataset.method));
  all("[data-front]", paper.closest(".plot")).forEach((row) => (row.hidden = !numbers.has(row.dataset.front)));
}

function hide() {
  all(".method[data-method]").forEach((part) => part.classList.toggle("off", isOff(part.dataset.method)));
  all("[data-key]").forEach((name) => name.classList.toggle("crossed", isOff(name.dataset.key)));
  all(".answers li").forEach((answer) => (answer.hidden = !answer.querySelector(".by:not(.off)")));
  all(".paper").forEach(redrawFront);
}

all(".switches").forEach((field) => {
  field.hidden = false;
  field.addEventListener("change", hide);
});
all("[data-all]").forEach((button) => {
  button.addEventListener("click", () => {
    switches.forEach((one) => (one.checked = button.dataset.all === "all"));
    hide();
  });
});

// One panel at a time

all(".panels").forEach((group) => {
  const panels = [...group.children];
  if (panels.length < 2) return;
  const bar = make("div", "", { className: "tabs" });
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "What is across");
  const buttons = panels.map((panel) => make("button", panel.dataset.name, { type: "button" }));
  const show = (chosen) => {
    panels.forEach((panel, place) => panel.classList.toggle("put-away", place !== chosen));
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === chosen)));
  };
  buttons.forEach((button, place) => button.addEventListener("click", () => show(place)));
  bar.append(...buttons);
  group.classList.add("switched");
  group.prepend(bar);
  show(0);
});

// Naming what is pointed at

const tip = make("div", "", { className: "tip", hidden: true });
tip.setAttribute("aria-hidden", "true"); // its words are in the labels already
document.body.append(tip);
const words = new Map();
all(".dot").forEach((dot) => {
  const title = dot.querySelector("title");
  words.set(dot, title.textContent);
  title.remove(); // else the browser shows it a second time
});
const NEAR = 26;
let lit = null;

function light(svg, dot) {
  if (lit === dot) return;
  all(".lit").forEach((part) => part.classList.remove("lit"));
  all("svg.pointed").forEach((part) => part.classList.remove("pointed"));
  lit = dot;
  tip.hidden = !dot;
  if (!dot) return;
  svg.classList.add("pointed");
  dot.closest(".method").classList.add("lit");
  dot.classList.add("lit");
  tip.textContent = words.get(dot);
  const place = new DOMPoint(dot.dataset.x, dot.dataset.y).matrixTransform(svg.getScreenCTM());
  const left = Math.min(Math.max(place.x - tip.offsetWidth / 2, 6), innerWidth - tip.offsetWidth - 6);
  const above = place.y - tip.offsetHeight - 14;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : place.y + 16}px`;
}

all(".paper > svg").forEach((svg) => {
  const dots = all(".dot", svg);
  const nearest = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const away = (dot) => Math.hypot(dot.dataset.x - at.x, dot.dataset.y - at.y);
    const seen = dots.filter((dot) => !isOff(dot.closest(".method").dataset.method));
    const first = seen.reduce((best, dot) => (!best || away(dot) < away(best) ? dot : best), null);
    return first && away(first) < NEAR ? first : null;
  };
  svg.addEventListener("pointermove", (event) => light(svg, nearest(event)));
  svg.addEventListener("pointerdown", (event) => light(svg, nearest(event)));
  svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && light(svg, null));
  svg.addEventListener("focusin", (event) => light(svg, event.target.closest(".dot")));
  svg.addEventListener("focusout", () => light(svg, null));
});
addEventListener("scroll", () => light(null, null), { passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && light(null, null));
