// The page of `minicluster dashboard`. Every text is set as text: what users call their pods is never HTML.

const GOOD = ["ready", "running"];
const WARN = ["paused", "restarting", "not ready", "degraded", "bootstrapping", "created", "unknown"];
const EVENTS = { // event -> tone and words
  die: ["bad", "died"], oom: ["bad", "out of memory"], kill: ["bad", "is killed"], unready: ["bad", "is not ready"],
  "quorum-lost": ["bad", "quorum lost"], unknown: ["bad", "no member answers"], fault: ["bad", "fault"],
  start: ["good", "started"], ready: ["good", "is ready"], quorum: ["good", "quorum again"], known: ["good", "members answer"],
  healed: ["good", "healed"], leader: ["info", "leader"], pause: ["bad", "paused"], unpause: ["good", "resumed"],
  create: ["", "created"], destroy: ["", "removed"], stop: ["", "stopped"], restart: ["", "restarted"],
};
const MOST_EVENTS = 200;
const DENSE = 12; // nodes of a cluster: with more of them cards are small
const SILENCE = 7000; // milliseconds without a word from the server, which says something every two seconds
const LINES = 80; // links that are drawn
const VERBS = {
  kill: ["Kill", "like a crash", "danger"], pause: ["Pause", "like a machine that hangs", "danger"],
  partition: ["Cut off", "from other nodes", "danger"], start: ["Start", "", "primary"], unpause: ["Resume", "", "primary"],
};

const page = Object.fromEntries(["totals", "connection", "trouble", "clusters", "events", "announce", "dialog", "theme"]
  .map((id) => [id, document.getElementById(id)]));
const clusters = new Map(); // name -> data
const usages = new Map(); // name -> node -> what it uses
const colours = new Map(); // group -> number of its colour
const still = matchMedia("(prefers-reduced-motion: reduce)");
let hello = null, engine = null;

// Elements

function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  set(made, about);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function set(element, about) {
  for (const [name, value] of Object.entries(about)) {
    if (name === "text") { if (element.textContent !== value) element.textContent = value; }
    else if (name.startsWith("on")) element[name] = value;
    else if (value === null || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

// Makes the children of an element those of a list, by key: what stays is not recreated, and keeps the focus.
function sync(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (!child) { child = make(item); child.dataset.key = name; }
    known.delete(name);
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

const part = (element, name) => element.querySelector(`[data-part="${name}"]`);
const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const tone = (state) => GOOD.includes(state) ? "good" : WARN.includes(state) ? "warn" : state === "stopped" ? "" : "bad";

function bytes(number) {
  for (const unit of ["B", "KiB", "MiB"]) { if (number < 1024) return `${Math.round(number)} ${unit}`; number /= 1024; }
  return `${number.toFixed(1)} GiB`;
}

// Clusters

function render() {
  const before = places();
  const shown = [...clusters.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  const listed = page.clusters.querySelector(".empty");
  if (listed) listed.remove();
  sync(page.clusters, shown, (c) => c.name, makeCluster, updateCluster);
  if (!shown.length && hello) page.clusters.append(el("p", { class: "empty", text: "No clusters. Start one: minicluster up" }));
  totals(shown);
  move(before);
}

function totals(shown) {
  const nodes = shown.flatMap((c) => c.nodes);
  const bad = nodes.filter((n) => tone(n.state) !== "good");
  page.totals.replaceChildren(`${plural(shown.length, "cluster")}, ${plural(nodes.length, "node")}`);
  if (bad.length) page.totals.append(", ", el("strong", { text: `${bad.length} not ready` }));
}

function makeCluster(c) {
  const id = `c-${c.name}`;
  return el("section", { class: "cluster", "aria-labelledby": id },
    el("header", {}, el("h2", { id, text: c.name }), el("span", { class: "profile", text: c.profile }),
      el("span", { class: "pill", "data-part": "phase" }), el("span", { "data-part": "quorums" }),
      el("ul", { class: "roles", "data-part": "roles", "aria-label": `Roles of ${c.name}` })),
    el("ul", { class: "notes", "data-part": "notes" }),
    el("ul", { class: "faults", "data-part": "faults", "aria-label": `Faults of ${c.name}` }),
    el("ul", { class: "groups", "data-part": "groups", "aria-label": `What runs in ${c.name}` }),
    el("ul", { class: "rows wide", "data-part": "wide", "aria-label": `In all of ${c.name}` }),
    el("div", { class: "stage", "data-part": "stage" }, el("ul", { class: "nodes", "data-part": "nodes", "aria-label": `Nodes of ${c.name}` }), drawing()));
}

function updateCluster(section, c) {
  const rows = c.workload.rows, names = new Set(c.nodes.map((n) => n.name));
  section.classList.toggle("dense", c.nodes.length > DENSE);
  section.classList.toggle("controlled", hello.control);
  set(part(section, "phase"), { text: c.phase, "data-tone": tone(c.phase) });
  const several = c.quorums.length > 1;
  sync(part(section, "quorums"), c.quorums, (q) => q.role, () => el("span", {}), (e, q) =>
    set(e, { class: q.lost ? "quorum lost" : "quorum", text: `${several ? `${q.role}: ` : ""}${q.text} ` }));
  sync(part(section, "roles"), c.roles, (r) => r.name, (r) => makeRole(c, r), (e, r) => updateRole(e, c, r));
  const notes = [...c.notes, ...(c.workload.why && !c.workload.rows.length ? [`What runs is not known: ${c.workload.why}`] : [])];
  sync(part(section, "notes"), [...new Set(notes)], (n) => n, () => el("li"), (e, n) => set(e, { text: n }));
  sync(part(section, "faults"), c.faults, (f) => f.id, (f) => makeFault(c, f), (e, f) => set(e.firstElementChild, { text: faultText(f) }));
  sync(part(section, "groups"), groups(rows), (g) => g.name, (g) => el("li", { class: `chip ${colour(g.name)}` }), (e, g) =>
    set(e, { text: `${g.name} ${g.ready}/${g.all}` }));
  sync(part(section, "wide"), rows.filter((r) => !names.has(r.node)), (r) => r.key, makeRow, updateRow);
  sync(part(section, "nodes"), c.nodes, (n) => n.name, (n) => makeNode(c, n), (e, n) =>
    updateNode(e, c, n, rows.filter((r) => r.node === n.name)));
  for (const list of ["notes", "faults", "groups", "wide"]) part(section, list).hidden = !part(section, list).children.length;
  part(section, "stage").classList.toggle("linked", c.links.length > 0);
  draw(part(section, "stage"), c.links);
}

function groups(rows) {
  const found = new Map();
  for (const row of rows) {
    if (!row.group || !row.state) continue;
    const group = found.get(row.group) ?? { name: row.group, all: 0, ready: 0 };
    group.all += 1;
    group.ready += row.ready ? 1 : 0;
    found.set(row.group, group);
  }
  return [...found.values()].sort((a, b) => a.name < b.name ? -1 : 1);
}

function colour(group) {
  if (!group || group === "system") return "own";
  if (!colours.has(group)) colours.set(group, colours.size % 8);
  return `g${colours.get(group)}`;
}

function makeRole(c, role) {
  const item = el("li", {}, el("span", { "data-part": "count" }));
  if (hello.control) {
    const change = (by) => () => confirmed(c.name, { verb: "scale", role: role.name, count: now(c.name, role.name) + by }, `Scale ${role.name} of ${c.name}`, "Scale");
    item.append(el("button", { type: "button", text: "\u2212", "aria-label": `One ${role.name} less in ${c.name}`, onclick: change(-1) }),
      el("button", { type: "button", text: "+", "aria-label": `One more ${role.name} in ${c.name}`, onclick: change(1) }));
  }
  return item;
}

function updateRole(item, c, role) { set(part(item, "count"), { text: `${role.name} ${role.count}` }); }

function now(cluster, role) { return clusters.get(cluster)?.roles.find((r) => r.name === role)?.count ?? 0; }

function faultText(fault) {
  return `Fault ${fault.id}: ${fault.text}${fault.seconds ? `, until ${clock(fault.since + fault.seconds)}` : ""}`;
}

function makeFault(c, fault) {
  const item = el("li", {}, el("span"));
  if (hello.control) item.append(el("button", { type: "button", text: "Heal", "aria-label": `Heal fault ${fault.id} of ${c.name}`,
    onclick: () => confirmed(c.name, { verb: "heal", fault: fault.id }, `Heal fault ${fault.id} of ${c.name}`, "Heal") }));
  return item;
}

// Nodes

function makeNode(c, node) {
  const meter = (what) => el("div", {}, el("span", { class: "label", "data-part": `${what}-text` }),
    el("div", { class: "meter", role: "meter", "data-part": what, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `${what} of ${node.name}` }, el("span")));
  const card = el("li", { class: "node" },
    el("div", { class: "head" }, el("h3", { text: node.name }), el("span", { class: "pill", "data-part": "state" })),
    el("div", { class: "about" }, el("span", { class: "role", text: node.role }), el("span", { class: "leader", "data-part": "leader", text: "\u2605 leader" }),
      el("span", { "data-part": "detail" })),
    el("div", { "data-part": "effects" }),
    el("div", { class: "meters", "data-part": "meters" }, meter("CPU"), meter("Memory")),
    el("ul", { class: "rows", "data-part": "rows", "aria-label": `On ${node.name}` }));
  if (hello.control) {
    const open = () => choose(c.name, node.name);
    part(card, "state").after(el("button", { class: "act", type: "button", text: "\u22ef", "aria-label": `Actions on ${node.name} of ${c.name}`, "aria-haspopup": "dialog",
      onclick: (event) => { event.stopPropagation(); open(); } }));
    card.onclick = open;
  }
  return card;
}

function updateNode(card, c, node, rows) {
  const kind = node.effects.length && tone(node.state) === "good" ? "warn" : tone(node.state);
  if (card.dataset.tone && card.dataset.tone !== kind) announce(`${node.name} of ${c.name} is ${node.state}`);
  set(card, { "data-tone": kind });
  set(part(card, "state"), { text: node.state, "data-tone": tone(node.state) });
  part(card, "leader").hidden = !node.leader;
  set(part(card, "detail"), { text: node.detail || (tone(node.state) === "good" ? "" : node.why) });
  sync(part(card, "effects"), node.effects, (e) => e, () => el("p", { class: "effect" }), (e, text) => set(e, { text }));
  const used = usages.get(c.name)?.[node.name], runs = ["ready", "running", "not ready", "paused"].includes(node.state);
  part(card, "meters").hidden = !runs;
  gauge(card, "CPU", runs && used ? used.cpu : null, (cpu) => `${cpu.toFixed(cpu < 10 ? 1 : 0)} %`, 100);
  gauge(card, "Memory", runs && used ? used.memory : null, bytes, used?.limit || 1);
  sync(part(card, "rows"), collapsed(rows), (r) => r.key, makeRow, updateRow);
}

// Of the system's own pods only the number is of interest.
function collapsed(rows) {
  const own = rows.filter((r) => r.group === "system"), others = rows.filter((r) => r.group !== "system");
  if (own.length < 2) return rows;
  const bad = own.filter((r) => !r.ready);
  return [...others, { ...own[0], key: "system", name: `system: ${own.length}`, ready: !bad.length, state: bad.length ? `${bad.length} not ready` : "" , detail: own.map((r) => r.name).join(", ") }];
}

function gauge(card, what, value, words, most) {
  const meter = part(card, what), share = value === null ? 0 : Math.min(100, value / most * 100);
  set(part(card, `${what}-text`), { text: value === null ? what : `${what} ${words(value)}` });
  set(meter, { "aria-valuenow": Math.round(share), "aria-valuetext": value === null ? "not known" : words(value), "data-high": share > 85 ? "" : null });
  meter.firstElementChild.style.width = `${share}%`;
}

function makeRow() { return el("li", { class: "chip" }, el("span", { class: "name" }), el("span", { class: "state" })); }

function updateRow(item, row) {
  set(item, { class: `chip ${colour(row.group)}${row.ready ? "" : " unready"}`, title: [row.name, row.state, row.detail].filter(Boolean).join(", ") });
  set(item.children[0], { text: row.name });
  set(item.children[1], { text: row.ready ? "" : row.state });
}

// Links that are cut or slow, between the cards

function drawing() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true"); // the cards say it in words
  return svg;
}

function draw(stage, links) {
  const svg = stage.querySelector("svg"), frame = stage.getBoundingClientRect();
  const cards = new Map([...stage.querySelectorAll(".node")].map((card) => [card.dataset.key, card.getBoundingClientRect()]));
  svg.replaceChildren(...links.slice(0, LINES).map((link, index) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const [a, b] = [cards.get(link.from), cards.get(link.to)];
    if (a && b) line.setAttribute("d", path(a, b, frame, index % 4 * 14 - 21));
    line.dataset.kind = link.kind;
    return line;
  }));
}

function path(a, b, frame, aside) {
  const x = (r) => r.left + r.width / 2 - frame.left + aside, top = (r) => r.top - frame.top, bottom = (r) => r.bottom - frame.top;
  if (Math.abs(a.top - b.top) < 4) { // in one row: above it
    const high = top(a) - 34 - aside / 2;
    return `M${x(a)},${top(a)} C${x(a)},${high} ${x(b)},${high} ${x(b)},${top(b)}`;
  }
  const [upper, lower] = a.top < b.top ? [a, b] : [b, a];
  return `M${x(upper)},${bottom(upper)} C${x(upper)},${bottom(upper) + 26} ${x(lower)},${top(lower) - 26} ${x(lower)},${top(lower)}`;
}

addEventListener("resize", () => { for (const c of clusters.values()) redraw(c); });
function redraw(c) {
  const section = [...page.clusters.children].find((child) => child.dataset.key === c.name);
  if (section && c.links.length) draw(part(section, "stage"), c.links);
}

// What runs moves from node to node before the eyes

function places() {
  const found = new Map();
  if (still.matches || document.hidden) return found;
  for (const section of page.clusters.children) {
    const chips = section.querySelectorAll(".node .chip");
    if (chips.length > 150) continue;
    for (const chip of chips) found.set(`${section.dataset.key}/${chip.dataset.key}`, [chip.closest(".node"), chip.getBoundingClientRect()]);
  }
  return found;
}

function move(before) {
  if (!before.size) return;
  for (const section of page.clusters.children) {
    for (const chip of section.querySelectorAll(".node .chip")) {
      const was = before.get(`${section.dataset.key}/${chip.dataset.key}`);
      if (was && was[0] !== chip.closest(".node")) {
        const is = chip.getBoundingClientRect(), by = `translate(${was[1].left - is.left}px, ${was[1].top - is.top}px)`;
        chip.animate([{ transform: by, zIndex: 5 }, { transform: "none" }], { duration: 900, easing: "ease-in-out" });
      } else if (!was) chip.animate([{ opacity: 0, transform: "scale(.4)" }, {}], { duration: 500 });
    }
  }
}

// Events

function clock(seconds) { return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false }); }

function happened(event) {
  const [kind, words] = EVENTS[event.event] ?? ["", event.event];
  const detail = Object.entries(event.detail).filter(([key]) => key !== "from");
  const about = event.event === "leader" ? event.detail.to || "none" : detail.map(([key, value]) => ["fault", "why"].includes(key) ? value : `${key.replace("_", " ")} ${value}`).join(", ");
  const who = event.event === "leader" ? "" : event.node;
  const item = el("li", { "data-tone": kind }, el("time", { text: clock(event.time), datetime: new Date(event.time * 1000).toISOString() }),
    el("span", {}, el("b", { text: [who, words].filter(Boolean).join(" ") }), about ? ` ${about} ` : " ", el("span", { class: "where", text: event.cluster })));
  page.events.prepend(item);
  while (page.events.children.length > MOST_EVENTS) page.events.lastElementChild.remove();
}

function announce(text) { page.announce.textContent = text; }

// The connection

let last = 0;
function connect() {
  const source = new EventSource("/stream");
  const heard = (kind, act) => source.addEventListener(kind, (message) => {
    last = Date.now();
    act(JSON.parse(message.data));
    connected("live", "live");
  });
  heard("all", (data) => {
    hello = data.hello;
    page.events.replaceChildren();
    page.clusters.replaceChildren();
    clusters.clear();
    usages.clear();
    take(data);
  });
  heard("news", take);
  heard("beat", () => {});
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      trouble("This browser has no access any more, or the dashboard has an error. Run `minicluster dashboard` again.");
      connected("lost", "no access");
    } else connected("lost", "disconnected, trying again");
  };
}

setInterval(() => { if (last && Date.now() - last > SILENCE) connected("lost", "disconnected, trying again"); }, 1000);

function connected(state, text) {
  document.body.classList.toggle("lost", state === "lost");
  set(page.connection, { "data-state": state, text });
}

function take({ topics, events }) {
  for (const [topic, data] of Object.entries(topics)) {
    const [kind, name] = [topic.slice(0, topic.indexOf("/")), topic.slice(topic.indexOf("/") + 1)];
    const where = { cluster: clusters, usage: usages }[kind];
    if (where) { if (data === null) where.delete(name); else where.set(name, data); }
    if (topic === "engine") engine = data;
  }
  for (const event of events) happened(event);
  trouble(engine?.error ? `The container engine does not answer: ${engine.error}` : "");
  render();
}

function trouble(text) { page.trouble.hidden = !text; set(page.trouble, { text }); }

// Control: first what it costs, then the deed

// Raised by each action of the user in a dialog and when it closes: an answer that comes later leaves the dialog alone.
let turn = 0;
// The event comes late: by then a further action may have opened the dialog again, and has raised it.
page.dialog.onclose = () => { if (!page.dialog.open) turn++; };

function show(title, ...content) {
  page.dialog.replaceChildren(el("h2", { id: "dialog-title", text: title }), ...content.filter((part) => part));
  if (!page.dialog.open) page.dialog.showModal();
}

function end(...buttons) {
  return el("div", { class: "end" }, el("button", { type: "button", text: "Cancel", onclick: () => page.dialog.close() }), ...buttons);
}

function choose(cluster, name) {
  turn++;
  const node = clusters.get(cluster)?.nodes.find((n) => n.name === name);
  if (!node) return;
  const verbs = { paused: ["unpause", "kill"], down: ["start"], missing: [] }[node.state] ?? ["kill", "pause", "partition"];
  const act = (verb) => () => verb === "partition" ? cutOff(cluster, name) : confirmed(cluster, { verb, node: name }, `${VERBS[verb][0]} ${name} of ${cluster}`, VERBS[verb][0]);
  show(`${name} of ${cluster}`, el("div", { class: "choices" }, ...verbs.map((verb) =>
    el("button", { type: "button", class: VERBS[verb][2], text: VERBS[verb].slice(0, 2).filter(Boolean).join(", "), onclick: act(verb) }))),
  verbs.length ? null : el("p", { text: "Its container was removed: minicluster up recreates it." }), end());
}

function cutOff(cluster, name) {
  turn++;
  const others = clusters.get(cluster).nodes.filter((n) => n.name !== name && !["down", "missing"].includes(n.state));
  if (!others.length) { show(`Cut off ${name} of ${cluster}`, el("p", { text: "No other node is running." }), end()); return; }
  const boxes = others.map((n) => el("input", { type: "checkbox", value: n.name, checked: "" }));
  const go = () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    if (chosen.length) confirmed(cluster, { verb: "partition", node: name, others: chosen }, `Cut off ${name} of ${cluster}`, "Cut off");
  };
  show(`Cut off ${name} of ${cluster}`, el("fieldset", {}, el("legend", { text: "from" }),
    ...boxes.map((box) => el("label", {}, box, el("span", { text: box.value })))), end(el("button", { type: "button", class: "danger", text: "Next", onclick: go })));
}

async function post(path, wish) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wish) });
  const data = await answer.json().catch(() => ({ error: "The dashboard has an error. The terminal that it runs in shows it." }));
  if (!answer.ok) throw new Error(data.error);
  return data;
}

async function confirmed(cluster, change, title, verb) {
  const wish = { cluster, ...change }, mine = ++turn;
  show(title, el("p", { text: "Asking what it costs." }), end());
  try {
    const cost = await post("/cost", wish);
    if (mine !== turn) return;
    const go = el("button", { type: "button", class: cost.severe || VERBS[change.verb]?.[2] === "danger" ? "danger" : "primary", text: verb });
    go.onclick = () => carryOut(wish, title, go);
    show(title, el("p", { class: cost.severe ? "severe" : null, "data-part": "cost", text: cost.text }), end(go));
    go.focus();
  } catch (error) { if (mine === turn) failed(title, error); }
}

async function carryOut(wish, title, button) {
  const mine = ++turn;
  button.disabled = true;
  button.textContent = "Working";
  try {
    const done = await post("/do", wish);
    announce(done.text);
    if (mine === turn) page.dialog.close();
  } catch (error) {
    if (mine === turn || !page.dialog.open) failed(title, error);
    else announce(`${title}: ${error.message}`);
  }
}

function failed(title, error) {
  show(title, el("p", { class: "severe", role: "alert", text: error.message || "The dashboard does not answer." }), end());
}

// Light and dark

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  set(page.theme, { text: `Theme: ${name}` });
}
page.theme.onclick = () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("theme") ?? "system") + 1) % 3]);
theme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");

connect();
