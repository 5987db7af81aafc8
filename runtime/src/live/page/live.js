// The live page: takes what the server says is new and shows it. Everything that comes from the run is set as text, so
// that no name or message can become markup.
"use strict";

const STATES = ["done", "known", "running", "waiting", "failed", "skipped"];
const MOST_LINES = 600;
const MOST_POINTS = 1600;
const COLOURS = 8;
const at = (id) => document.getElementById(id);

const run = { head: null, families: new Map(), steps: new Map(), curves: new Map(), load: [], received: 0 };
let chosen = null;
let dirty = new Set();

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

// Rows that stay the same elements while what they show changes.
function sync(parent, keys, create, fill) {
  const rows = parent.known ??= new Map();
  const wanted = new Set(keys);
  for (const [key, row] of rows) if (!wanted.has(key)) { row.remove(); rows.delete(key); }
  let before = null;
  for (const key of keys) {
    let row = rows.get(key);
    if (!row) { row = create(key); rows.set(key, row); }
    const place = before ? before.nextSibling : parent.firstChild;
    if (place !== row) parent.insertBefore(row, place);
    fill(row, key);
    before = row;
  }
}

function seconds(s) {
  if (!Number.isFinite(s)) return "";
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 99.5) return `${s.toFixed(1)} s`;
  if (s < 5970) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function number(value, percent) {
  if (value === null || Number.isNaN(value)) return "NaN";
  if (percent) return `${(value * 100).toFixed(1)} %`;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function gib(bytes) {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

// What is new ----------------------------------------------------------------------------------------------------------

function take(message) {
  if (message.reset) {
    run.head = null;
    for (const part of ["families", "steps", "curves"]) run[part].clear();
    run.load = [];
    chosen = null;
    at("log").replaceChildren();
    at("summary-frame").replaceChildren();
    dirty = new Set(["head", "families", "steps", "curves", "load"]);
  }
  if (message.head) { run.head = message.head; run.received = performance.now(); dirty.add("head"); }
  for (const family of message.families ?? []) { run.families.set(family.id, family); dirty.add("families"); }
  for (const step of message.steps ?? []) { step.received = performance.now(); run.steps.set(step.id, step); dirty.add("steps"); }
  for (const part of message.curves ?? []) {
    let curve = run.curves.get(part.id);
    if (!curve || part.whole) run.curves.set(part.id, curve = part);
    else { curve.x.push(...part.x); curve.y.push(...part.y); }
    if (curve.x.length > MOST_POINTS) thin(curve);
    dirty.add("curves");
  }
  for (const load of message.load ?? []) { run.load.push(load); if (run.load.length > 120) run.load.shift(); dirty.add("load"); }
  if (message.log) log(message.log);
  schedule();
}

// Of each four neighbours the lowest and the highest stay, so that no spike is lost.
function thin(curve) {
  const x = [], y = [], value = (i) => curve.y[i] ?? -Infinity;
  for (let i = 0; i < curve.x.length; i += 4) {
    const part = [i, i + 1, i + 2, i + 3].filter((j) => j < curve.x.length);
    const low = part.reduce((a, b) => (value(b) < value(a) ? b : a)), high = part.reduce((a, b) => (value(b) > value(a) ? b : a));
    for (const j of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) { x.push(curve.x[j]); y.push(curve.y[j]); }
  }
  curve.x = x;
  curve.y = y;
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; show(); });
}

function show() {
  const parts = dirty;
  dirty = new Set();
  if (parts.has("head")) showHead();
  if (parts.has("families")) showGraph();
  if (parts.has("steps")) { showRunning(); showSteps(); }
  if (parts.has("curves")) showCurves();
  if (parts.has("load")) showLoad();
}

// The head -------------------------------------------------------------------------------------------------------------

function bar(element, counts, all) {
  sync(element, STATES.filter((state) => counts[state]), (state) => make("span", `s-${state}`), (span, state) => {
    span.style.width = `${(100 * counts[state]) / Math.max(all, 1)}%`;
  });
}

function counted(families) {
  const counts = {};
  for (const family of families) for (const state of STATES) counts[state] = (counts[state] ?? 0) + family.counts[state];
  return counts;
}

const words = (counts) => STATES.filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`).join(", ");

function showHead() {
  const head = run.head ?? { standing: "awaited" };
  at("file").textContent = head.file ?? "no run yet";
  document.title = head.file ? `${head.over}/${head.total} ${head.file} ${head.standing}` : "harness";
  at("standing").textContent = head.standing;
  at("standing").className = `standing ${head.standing}`;
  const params = (head.params ?? []).map(([name, value]) => `${name} = ${value}`).join(", ");
  at("meta").textContent = head.run ? `run ${head.run}, process ${head.process} on ${head.host}${params ? `, ${params}` : ""}` : "waits for a run to begin";
  tick();
  const end = head.end;
  at("summary-part").hidden = !end;
  if (end) {
    sync(at("claims"), Object.keys(end.claims).map((text, i) => `${i} ${text}`), () => make("div", "claim"), (row, key) => {
      const text = key.slice(key.indexOf(" ") + 1), outcome = end.claims[text];
      row.replaceChildren(make("div", outcome, outcome), make("div", "", text));
    });
    at("summary-link").hidden = !head.summary;
    const frame = at("summary-frame");
    if (head.summary && !frame.firstChild) {
      const page = make("iframe");
      page.title = "summary";
      page.setAttribute("sandbox", "allow-scripts allow-downloads allow-popups");
      page.src = "/summary.html";
      frame.append(page);
    }
  }
}

function tick() {
  const head = run.head;
  const over = !head || head.end || head.standing === "killed";
  const since = over ? 0 : (performance.now() - run.received) / 1000;
  at("elapsed").textContent = head?.run ? `${head.over} of ${head.total} steps, ${head.standing === "running" ? "for" : "in"} ${seconds(head.elapsed_s + since)}` : "";
  if (over) return;
  for (const row of at("running").children) row.tick?.();
}
setInterval(tick, 1000);

// The graph: a family is a node ----------------------------------------------------------------------------------------

const NODE = { width: 168, height: 64, across: 56, down: 16 };

function showGraph() {
  const families = [...run.families.values()];
  const counts = counted(families), all = families.reduce((sum, family) => sum + family.members, 0);
  bar(at("total"), counts, all);
  at("total").setAttribute("aria-label", words(counts));
  sync(at("counts"), STATES.filter((state) => counts[state]), (state) => {
    const entry = make("span");
    entry.append(make("span", `key s-${state}`), make("span"));
    return entry;
  }, (entry, state) => { entry.lastChild.textContent = `${counts[state]} ${state}`; });

  const layers = [...new Set(families.map((family) => family.layer))].sort((a, b) => a - b);
  const columns = layers.map((layer) => families.filter((family) => family.layer === layer));
  const places = new Map();
  const tallest = Math.max(1, ...columns.map((column) => column.length));
  columns.forEach((column, i) => {
    // What takes from the same families stands near them.
    const height = (family) => {
      const inputs = family.inputs.map((input) => places.get(input)?.y).filter((y) => y !== undefined);
      return inputs.length ? inputs.reduce((a, b) => a + b, 0) / inputs.length : family.id * 1e-3;
    };
    const order = column.map((family) => [height(family), family.id, family]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const top = ((tallest - column.length) * (NODE.height + NODE.down)) / 2;
    order.forEach(([, , family], j) => places.set(family.id, { x: i * (NODE.width + NODE.across) + 3, y: top + j * (NODE.height + NODE.down) + 3 }));
  });
  const graph = at("graph");
  const width = Math.max(0, columns.length * (NODE.width + NODE.across) - NODE.across + 6), height = tallest * (NODE.height + NODE.down) - NODE.down + 6;
  graph.style.width = `${width}px`;
  graph.style.height = `${height}px`;
  let edges = graph.edges;
  if (!edges) { edges = graph.edges = draw("svg", { "aria-hidden": "true" }); graph.before(edges); }
  graph.nodes ??= graph.appendChild(make("div"));
  if (edges.parentNode !== graph) graph.prepend(edges);
  edges.setAttribute("width", width);
  edges.setAttribute("height", height);
  edges.replaceChildren();
  for (const family of families) for (const input of family.inputs) {
    const from = places.get(input), to = places.get(family.id);
    if (!from || !to) continue;
    const [x1, y1, x2, y2] = [from.x + NODE.width, from.y + NODE.height / 2, to.x, to.y + NODE.height / 2], bend = Math.max(30, (x2 - x1) / 2);
    draw("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, class: chosen === family.id || chosen === input ? "chosen" : "" }, edges);
  }
  sync(graph.nodes, families.map((family) => family.id), (id) => {
    const node = make("button", "node");
    node.type = "button";
    node.append(make("b"), make("small"), make("div", "states"));
    node.lastChild.before(node.children[1]);
    node.children[1].append(make("span"), make("span"));
    node.addEventListener("click", () => { chosen = chosen === id ? null : id; dirty.add("families"); dirty.add("steps"); schedule(); });
    return node;
  }, (node, id) => {
    const family = run.families.get(id), over = family.members - family.counts.waiting - family.counts.running;
    node.style.left = `${places.get(id).x}px`;
    node.style.top = `${places.get(id).y}px`;
    node.className = `node ${family.counts.failed ? "failed" : family.counts.running ? "running" : ""}`;
    node.setAttribute("aria-pressed", String(chosen === id));
    node.title = `${family.name}, ${family.kind}: ${words(family.counts)}`;
    node.children[0].textContent = family.name;
    node.children[1].children[0].textContent = family.kind;
    node.children[1].children[1].textContent = family.members > 1 ? `${over}/${family.members}` : STATES.find((state) => family.counts[state]) ?? "";
    bar(node.children[2], family.counts, family.members);
  });
}

// Steps ----------------------------------------------------------------------------------------------------------------

function showRunning() {
  const running = [...run.steps.values()].filter((step) => step.standing === "running");
  at("running-part").hidden = !running.length;
  sync(at("running"), running.map((step) => step.id), () => {
    const row = make("div", "row"), outer = make("div", "bar");
    outer.append(make("span"));
    row.append(make("div", "name"), outer, make("div", "small"));
    return row;
  }, (row, id) => {
    const step = run.steps.get(id), progress = step.progress;
    row.children[0].textContent = step.label;
    row.children[1].classList.toggle("unknown", !progress?.total);
    const share = progress?.total ? Math.min(1, progress.done / progress.total) : 0;
    row.children[1].firstChild.style.width = `${(100 * share).toFixed(1)}%`;
    row.tick = () => {
      const since = (performance.now() - step.received) / 1000;
      const left = share < 1 && Number.isFinite(progress?.left_s) ? Math.max(0, progress.left_s - since) : NaN;
      const rate = progress?.elapsed_s > 0 && progress.done ? `, ${number(progress.done / progress.elapsed_s)} ${progress.unit}/s` : "";
      row.children[2].textContent = progress ? `${Math.floor(100 * share)} % ${progress.stage}${rate}${Number.isFinite(left) ? `, about ${seconds(left)} left` : ""}` : `on ${step.slot}`;
    };
    row.tick();
  });
  const failed = [...run.steps.values()].filter((step) => step.standing === "failed");
  at("failed-part").hidden = !failed.length;
  sync(at("failed"), failed.slice(0, 50).map((step) => step.id), () => {
    const row = make("div");
    row.append(make("b"), make("div", "error"));
    return row;
  }, (row, id) => {
    row.children[0].textContent = run.steps.get(id).label;
    row.children[1].textContent = run.steps.get(id).error ?? "";
  });
}

const ORDER = { failed: 0, running: 1, done: 2, known: 3, waiting: 4, skipped: 5 };

function showSteps() {
  const asked = at("filter").value.trim().toLowerCase();
  const all = [...run.steps.values()].filter((step) => chosen === null || step.family === chosen);
  const found = all.filter((step) => !asked || `${step.label} ${step.standing} ${step.numbers ?? ""}`.toLowerCase().includes(asked));
  found.sort((a, b) => ORDER[a.standing] - ORDER[b.standing] || a.id - b.id);
  const some = found.slice(0, 500);
  const family = chosen === null ? "" : ` of ${run.families.get(chosen)?.name}`;
  at("shown").textContent = `${some.length < all.length ? `${some.length} of ` : ""}${all.length} steps${family}`;
  sync(at("steps"), some.map((step) => step.id), () => {
    const row = make("tr"), state = make("td");
    state.append(make("span"), make("span"));
    row.append(make("td", "name"), state, make("td"), make("td"));
    return row;
  }, (row, id) => {
    const step = run.steps.get(id);
    if (row.shown === step) return;
    row.shown = step;
    row.children[0].textContent = step.label;
    row.children[1].firstChild.className = `key s-${step.standing}`;
    row.children[1].lastChild.textContent = step.standing;
    row.children[2].textContent = step.took ?? "";
    row.children[3].textContent = step.standing === "skipped" || step.standing === "failed" ? (step.error ?? "").split("\n")[0] : step.numbers ?? "";
  });
}

at("filter").addEventListener("input", () => { dirty.add("steps"); schedule(); });

// Curves and load ------------------------------------------------------------------------------------------------------

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? rough;
  const out = [];
  for (let t = Math.ceil(low / step); t * step <= high + step * 1e-9 && out.length < 20; t += 1) out.push(t * step);
  return out;
}

// A figure of lines over a common abscissa: series are { label, colour, x, y }.
class Plot {
  constructor(parent, height) {
    this.parent = parent;
    this.height = height;
    parent.className = "plot";
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    parent.append(this.tip);
    parent.addEventListener("pointermove", (event) => { this.over = event.clientX - parent.getBoundingClientRect().left; this.point(); });
    parent.addEventListener("pointerleave", () => { this.over = undefined; this.point(); });
    new ResizeObserver(() => this.render()).observe(parent);
  }

  set(series, options) {
    this.series = series;
    this.options = options ?? {};
    this.render();
  }

  render() {
    const width = this.parent.clientWidth, height = this.height;
    if (!width || !this.series) return;
    const points = this.series.flatMap((s) => s.x.map((x, i) => [x, s.y[i]])).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && y !== null);
    let [x0, x1, y0, y1] = points.reduce(([a, b, c, d], [x, y]) => [Math.min(a, x), Math.max(b, x), Math.min(c, y), Math.max(d, y)], [Infinity, -Infinity, Infinity, -Infinity]);
    [y0, y1] = this.options.range ?? [y0, y1];
    if (!Number.isFinite(x0)) [x0, x1] = [0, 1];
    if (!Number.isFinite(y0)) [y0, y1] = [0, 1];
    if (x1 - x0 < 1e-12) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    if (y1 - y0 <= Math.abs(y1) * 1e-9) [y0, y1] = [y0 - (Math.abs(y0) * 0.05 || 0.5), y1 + (Math.abs(y1) * 0.05 || 0.5)];
    const left = 50, right = 10, top = 8, bottom = this.options.bare ? 8 : 22;
    this.box = { left, right: width - right, top, bottom: height - bottom };
    this.px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
    this.py = (y) => top + (1 - (y - y0) / (y1 - y0)) * (height - top - bottom);
    this.back = (px) => x0 + ((px - left) / (width - left - right)) * (x1 - x0);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": this.options.title ?? "" });
    for (const t of ticks(y0, y1, this.options.bare ? 2 : 4)) {
      draw("line", { class: "grid", x1: left, x2: width - right, y1: this.py(t), y2: this.py(t) }, svg);
      draw("text", { x: left - 6, y: this.py(t) + 4, "text-anchor": "end" }, svg).textContent = this.options.percent ? `${Number((t * 100).toPrecision(6))} %` : number(t);
    }
    if (!this.options.bare) for (const t of ticks(x0, x1, Math.max(2, width / 90))) draw("text", { x: this.px(t), y: height - 6, "text-anchor": "middle" }, svg).textContent = number(t);
    for (const s of this.series) {
      let part = [];
      const flush = () => {
        if (part.length === 1) part.push(part[0]);
        if (part.length) draw("polyline", { class: `c${s.colour % COLOURS}`, "stroke-linecap": "round", "stroke-dasharray": ["", "7 4", "2 3"][Math.floor(s.colour / COLOURS) % 3], points: part.join(" ") }, svg);
        part = [];
      };
      s.x.forEach((x, i) => {
        if (s.y[i] === null || !Number.isFinite(s.y[i])) flush();
        else part.push(`${this.px(x).toFixed(1)},${this.py(s.y[i]).toFixed(1)}`);
      });
      flush();
    }
    this.cursor = draw("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" }, svg);
    this.parent.querySelector("svg")?.remove();
    this.parent.prepend(svg);
    this.point();
  }

  point() {
    const shown = this.over !== undefined && this.box && this.over >= this.box.left && this.over <= this.box.right;
    this.tip.hidden = !shown;
    this.cursor?.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    const x = this.back(this.over);
    this.cursor.setAttribute("x1", this.over);
    this.cursor.setAttribute("x2", this.over);
    const lines = this.series.filter((s) => s.x.length).map((s) => {
      const i = s.x.reduce((best, value, j) => (Math.abs(value - x) < Math.abs(s.x[best] - x) ? j : best), 0);
      const row = make("div");
      row.append(make("span", `key k${s.colour % COLOURS}`), make("span", "", `${s.label}: ${number(s.y[i], this.options.percent)}${this.options.bare ? "" : ` at ${number(s.x[i])}`}`));
      return row;
    });
    this.tip.replaceChildren(...lines.slice(0, 14), ...(lines.length > 14 ? [make("div", "", `and ${lines.length - 14} more`)] : []));
    const half = this.over > this.parent.clientWidth / 2;
    this.tip.style.left = half ? "" : `${this.over + 12}px`;
    this.tip.style.right = half ? `${this.parent.clientWidth - this.over + 12}px` : "";
  }
}

function showCurves() {
  const figures = new Map();
  for (const curve of run.curves.values()) {
    const title = `${curve.name} of ${curve.kind}`;
    if (!figures.has(title)) figures.set(title, []);
    figures.get(title).push(curve);
  }
  at("curves-part").hidden = !figures.size;
  // A learning rate is no finding: it comes last.
  const titles = [...figures.keys()].sort((a, b) => a.startsWith("lr of") - b.startsWith("lr of"));
  sync(at("curves"), titles, (title) => {
    const figure = make("figure"), place = make("div");
    figure.append(make("h3", "", title), place, make("figcaption", "legend"));
    figure.plot = new Plot(place, 220);
    return figure;
  }, (figure, title) => {
    const curves = figures.get(title), labels = [...new Set(curves.map((curve) => curve.label))];
    const series = curves.map((curve) => ({ label: curve.replicate ? `${curve.label} ${curve.replicate}` : curve.label, colour: labels.indexOf(curve.label), x: curve.x, y: curve.y }));
    figure.plot.set(series, { title, percent: curves[0].percent });
    sync(figure.lastChild, labels.slice(0, 12), (label) => {
      const entry = make("span");
      entry.append(make("span", `key k${labels.indexOf(label) % COLOURS}`), make("span", "", label));
      return entry;
    }, () => {});
  });
}

function showLoad() {
  const last = run.load.at(-1);
  at("load-part").hidden = !last;
  if (!last) return;
  const meters = [
    ["processors", (load) => load.cpu, () => `${Math.round(100 * last.cpu)} %`],
    ["memory", (load) => load.used / load.total, () => `${gib(last.used)} of ${gib(last.total)}`],
  ];
  last.gpus.forEach((gpu, i) => {
    meters.push([`GPU ${gpu.index} ${gpu.name}`, (load) => load.gpus[i]?.busy, () => `${Math.round(100 * gpu.busy)} %`]);
    meters.push([`memory of GPU ${gpu.index}`, (load) => load.gpus[i] && load.gpus[i].used / load.gpus[i].total, () => `${gib(gpu.used)} of ${gib(gpu.total)}`]);
  });
  sync(at("load"), meters.map(([name]) => name), (name) => {
    const figure = make("figure"), place = make("div"), title = make("h3", "", `${name} `);
    title.append(make("span", "small"));
    figure.append(title, place);
    figure.plot = new Plot(place, 80);
    return figure;
  }, (figure, name) => {
    const [, value, now] = meters.find(([found]) => found === name);
    figure.querySelector(".small").textContent = now();
    figure.plot.set([{ label: name, colour: 0, x: run.load.map((_, i) => i), y: run.load.map((load) => value(load) ?? null) }], { title: name, percent: true, range: [0, 1], bare: true });
  });
}

function log(lines) {
  const box = at("log");
  // Whoever scrolled up reads; the box stays where it is then.
  const follows = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  for (const line of lines) {
    const row = make("div", line.level);
    if (line.label) row.append(make("span", "of", `${line.label}  `));
    row.append(line.level === "info" || line.level === "out" ? line.text : `${line.level}: ${line.text}`);
    box.append(row);
  }
  while (box.childElementCount > MOST_LINES) box.firstChild.remove();
  if (follows) box.scrollTop = box.scrollHeight;
}

// The connection -------------------------------------------------------------------------------------------------------

function connect() {
  const events = new EventSource("/events");
  events.onmessage = (event) => { at("lost").hidden = true; take(JSON.parse(event.data)); };
  events.onerror = () => {
    // After a run that has ended there is nothing to be sorry about.
    at("lost").hidden = Boolean(run.head?.end);
    // The browser tries again by itself, except where the server answered and refused.
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  };
}
connect();
