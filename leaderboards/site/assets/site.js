// What HTML cannot do alone: filters, the card beside a score, the theme switch. Sorting is sortable-tablesort's.
"use strict";

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// ── theme ────────────────────────────────────────────────────────────────────────────────────────────────────────
function theme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const say = () => { button.textContent = `Theme: ${root.dataset.theme ?? "auto"}`; };
  button.hidden = false;
  say();
  button.addEventListener("click", () => {
    const next = { auto: "light", light: "dark", dark: "auto" }[root.dataset.theme ?? "auto"];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try { localStorage.setItem("slimbench-theme", next); } catch { /* the choice holds for this page */ }
    say();
  });
}

// ── sorting: each column begins with its better end ────────────────────────────────────────────────────────────────
function sorting() {
  document.addEventListener("click", (event) => {
    const header = event.target.closest?.("table.sortable thead th[data-first]");
    if (!header) return;
    header.closest("table").classList.toggle("asc", header.dataset.first === "asc");
  }, true);
  document.addEventListener("sort-end", (event) => {
    const header = event.target.querySelector("thead th[aria-sort]");
    const status = document.getElementById("status");
    if (status && header) tell(status, `sorted by ${header.textContent.trim()}, ${header.getAttribute("aria-sort")}`);
  });
}

function tell(status, more = "") {
  status.textContent = [status.dataset.count, more].filter(Boolean).join(" · ");
}

// ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────
function wanted(row, form) {
  const params = row.dataset.params === "" ? NaN : Number(row.dataset.params);
  const [low, high] = [form.low.value, form.high.value];
  return (form.suite.value === "" || row.dataset.suite === form.suite.value)
    && checked(form, "origin").includes(row.dataset.origin)
    && (low === "" || params >= Number(low))
    && (high === "" || params <= Number(high))
    && row.dataset.name.toLowerCase().includes(form.q.value.trim().toLowerCase());
}

const NARROW = matchMedia("(max-width: 40rem)");

const checked = (form, name) => [...form.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);

// Why no row is left: a filter that nothing passes even alone, or several that contradict each other.
function contradiction(rows, form) {
  if (!checked(form, "origin").length) return "no origin is ticked: tick one, or reset";
  const [low, high] = [form.low.value, form.high.value];
  if (low !== "" && high !== "" && Number(low) > Number(high)) return "parameters from above to: swap them, or reset";
  const suite = form.suite.value;
  const there = new Set(rows.filter((row) => suite === "" || row.dataset.suite === suite).map((row) => row.dataset.origin));
  if (!checked(form, "origin").some((origin) => there.has(origin))) {
    return `suite ${suite} has ${[...there].join(" and ")} rows only: choose another origin or suite, or reset`;
  }
  return "no row passes all filters together: widen one, or reset";
}

function filter(table, form) {
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !wanted(row, form);
  const shown = rows.filter((row) => !row.hidden);
  const groups = checked(form, "group");
  const [over, names] = table.tHead.rows;
  const mixed = new Set(shown.map((row) => row.dataset.suite)).size > 1;
  const narrow = NARROW.matches;
  const width = {};
  [...names.cells].forEach((header, index) => {
    const group = header.dataset.group;
    const home = group ?? (index === 0 ? "corner" : "fixed");
    const cost = narrow && header.dataset.column !== undefined && header.classList.contains("num");
    const empty = index > 0 && shown.length > 0 && shown.every((row) => row.cells[index].dataset.sort === "");
    const idle = header.dataset.column === "Suite" && shown.length > 0 && !mixed;
    const hide = empty || idle || cost || (group !== undefined && !groups.includes(group));
    header.hidden = hide;
    for (const row of rows) row.cells[index].hidden = hide;
    if (!hide) width[home] = (width[home] ?? 0) + 1;
  });
  for (const cell of over.cells) {
    const span = width[cell.dataset.group] ?? 0;
    cell.hidden = span === 0;
    cell.colSpan = Math.max(span, 1);
  }
  table.classList.toggle("ci", form.ci.checked);
  const status = document.getElementById("status");
  status.dataset.count = `${shown.length} of ${rows.length} rows`
    + (mixed ? " · scores of different suites do not compare" : "")
    + (shown.length === 0 ? ` · ${contradiction(rows, form)}` : "");
  tell(status);
}

function restore(form) {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (![...asked.keys()].length) return;
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") field.checked = asked.getAll(field.name).includes(field.value);
    else if (asked.has(field.name)) field.value = asked.get(field.name);
  }
}

function filters() {
  const form = document.getElementById("filters");
  const table = document.getElementById("board");
  if (!form || !table) return;
  form.hidden = false;
  if (NARROW.matches) form.querySelector("details").open = false;
  restore(form);
  const apply = () => filter(table, form);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    apply();
    history.replaceState(null, "", `#${new URLSearchParams(new FormData(form))}`);
  });
  form.addEventListener("reset", () => setTimeout(() => {
    apply();
    history.replaceState(null, "", location.pathname);
  }));
  NARROW.addEventListener("change", apply);
  addEventListener("hashchange", () => { restore(form); apply(); });
  apply();
}

// ── the card beside a score: interval, record, details ─────────────────────────────────────────────────────────────
function cards() {
  const card = make("div", { id: "card", role: "tooltip", hidden: true });
  let owner = null;
  let closing = 0;

  const place = () => {
    const at = owner.getBoundingClientRect();
    const size = card.getBoundingClientRect();
    const left = Math.min(at.left + at.width / 2 - size.width / 2, document.documentElement.clientWidth - size.width - 8);
    const above = at.top - size.height - 4;
    card.style.left = `${Math.max(8, left)}px`;
    card.style.top = `${above > 8 ? above : at.bottom + 4}px`;
  };
  const close = () => {
    card.hidden = true;
    owner?.removeAttribute("aria-describedby");
    owner = null;
  };
  const open = (link) => {
    clearTimeout(closing);
    if (owner === link) return;
    close();
    owner = link;
    const lines = link.dataset.tip.split("; ");
    const text = make("p", { id: "card-text" }, ...lines.map((line) => make("span", {}, line)));
    const links = make("p", { className: "links" }, make("a", { href: link.getAttribute("href") }, "details"));
    if (link.dataset.record) links.prepend(make("a", { href: link.dataset.record }, "record"));
    card.replaceChildren(make("strong", {}, make("bdi", {}, link.dataset.name)), text, links);
    // Beside the score in the document, so that Tab leads from the score into the card.
    const home = link.ownerSVGElement ? link.closest("figure") : link.parentElement;
    if (link.ownerSVGElement) home.append(card);
    else link.after(card);
    card.hidden = false;
    link.setAttribute("aria-describedby", "card-text");
    place();
  };
  const later = () => { clearTimeout(closing); closing = setTimeout(close, 250); };
  const scoreOf = (target) => target.closest?.("a[data-tip]");

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const link = scoreOf(event.target);
    if (link) open(link);
    else if (card.contains(event.target)) clearTimeout(closing);
    else if (owner) later();
  });
  document.addEventListener("focusin", (event) => {
    const link = scoreOf(event.target);
    if (link) open(link);
    else if (!card.contains(event.target)) close();
  });
  // A first tap shows the card, which holds both links; a second one follows the score's own.
  let touched = null;
  document.addEventListener("pointerdown", (event) => {
    const link = scoreOf(event.target);
    touched = event.pointerType === "touch" && link && owner !== link ? link : null;
    if (!link && !card.contains(event.target)) close();
  });
  document.addEventListener("click", (event) => {
    const link = scoreOf(event.target);
    if (!link || link !== touched) return;
    event.preventDefault();
    open(link);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  document.addEventListener("scroll", () => { if (owner) place(); }, true);
}

theme();
sorting();
filters();
cards();
