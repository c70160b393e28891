// The console's one script. Without it every page reads and every act works: it keeps pages true, and gives keys.
"use strict";
(() => {
  const body = document.body;
  const find = (id) => document.getElementById(id);
  const BEAT = 5000;

  // ---- pages that stay true
  const live = find("live"), word = find("live-word"), pause = find("pause");
  const title = document.title;
  let stream = null, heard = 0, paused = false, waiting = new Map();

  const clock = () => new Date().toTimeString().slice(0, 8);
  const say = (state, text) => {
    live.className = "live " + state;
    if (word.textContent !== text) word.textContent = text;
    document.title = state === "stale" ? "(stale) " + title : title;
  };

  // Makes `old` what `fresh` is, and keeps what need not change: so focus, selection and what was unfolded stay.
  const morph = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) return;
    if (old.matches("input, select, textarea, dialog, .copy")) return;
    // What somebody has unfolded is theirs: `name` would fold all but one again.
    const theirs = (name) => name === "open" || (name === "name" && old.nodeName === "DETAILS");
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && name !== "class" && !theirs(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (!theirs(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((node, at) => (at < before.length ? morph(before[at], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  };

  const put = ({ id, digest, html }) => {
    const part = find(id);
    // What waited is older than this.
    waiting.delete(id);
    if (!part || part.dataset.digest === digest) return;
    const chosen = getSelection();
    const busy = part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
    if (busy || (!chosen.isCollapsed && part.contains(chosen.anchorNode))) {
      waiting.set(id, { id, digest, html });
      return;
    }
    const fresh = new DOMParser().parseFromString("<div></div>", "text/html").body.firstChild;
    fresh.innerHTML = html;
    for (const { name, value } of part.attributes) fresh.setAttribute(name, value);
    morph(part, document.importNode(fresh, true));
    part.dataset.digest = digest;
    show();
  };

  const open = () => {
    if (!body.dataset.live || paused || document.hidden || stream) return;
    stream = new EventSource(body.dataset.live);
    const alive = () => { heard = performance.now(); say("on", waiting.size ? "Live, but for what you have selected" : "Live"); };
    stream.addEventListener("part", (event) => put(JSON.parse(event.data)));
    stream.addEventListener("beat", (event) => {
      [...waiting.values()].forEach(put);
      alive();
      const { attention } = JSON.parse(event.data), count = find("attention-count");
      if (count && attention !== null) { count.hidden = !attention; count.firstChild.textContent = attention; }
    });
    stream.addEventListener("still", () => (heard = performance.now()));
    stream.addEventListener("late", (event) => say("stale", "Stale since " + clock() + ": " + event.data));
    stream.addEventListener("trouble", (event) => say("stale", "Stale since " + clock() + ". " + event.data.slice(0, 120)));
    stream.addEventListener("bye", () => { close(); say("stale", "The console restarts. Stale since " + clock()); });
  };
  const close = () => { if (stream) stream.close(); stream = null; };
  if (live && body.dataset.live) {
    pause.hidden = false;
    pause.onclick = () => {
      paused = !paused;
      pause.textContent = paused ? "Go on" : "Pause";
      if (paused) { close(); say("paused", "Paused at " + clock()); } else open();
    };
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    setInterval(() => {
      if (paused || document.hidden) return;
      if (stream && heard && performance.now() - heard > 3 * BEAT && !live.classList.contains("stale")) say("stale", "Stale since " + clock() + ". Reconnecting");
      // A stream that was refused does not come back by itself.
      if (!stream || stream.readyState === EventSource.CLOSED) { close(); open(); }
    }, 3000);
    open();
  }

  // ---- copy, theme, help
  const show = () => document.querySelectorAll(".copy[hidden]").forEach((button) => (button.hidden = !navigator.clipboard));
  show();
  const copy = (text) => navigator.clipboard && navigator.clipboard.writeText(text);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button.dataset.copy);
  });
  const theme = find("theme"), help = find("help"), keys = find("keys"), off = find("keys-off");
  const turn = () => {
    const next = { "": "light", light: "dark", dark: "" }[document.documentElement.dataset.theme || ""];
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    document.cookie = "theme=" + next + "; path=/; samesite=strict; max-age=" + (next ? 31536000 : 0);
  };
  if (theme) { theme.hidden = false; theme.onclick = turn; }
  if (help) { help.hidden = false; help.onclick = () => keys.showModal(); }
  const store = (value) => { try { if (value === undefined) return localStorage.getItem("keys") === "off"; localStorage.setItem("keys", value ? "off" : "on"); } catch { return false; } };
  off.checked = store();
  off.onchange = () => store(off.checked);

  // ---- keys
  let row = -1, went = 0;
  const step = (by) => {
    const rows = [...document.querySelectorAll("[data-row]")];
    if (!rows.length) return;
    rows.forEach((it) => it.classList.remove("here"));
    row = Math.max(0, Math.min(rows.length - 1, row + by));
    rows[row].classList.add("here");
    rows[row].scrollIntoView({ block: "nearest" });
    const link = rows[row].querySelector("a");
    if (link) link.focus({ preventScroll: true });
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.matches("input")) event.target.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || off.checked || event.target.closest("input, select, textarea, dialog")) return;
    const key = event.key, place = performance.now() - went < 1500 && document.querySelector(`[data-go="${CSS.escape(key)}"]`);
    went = 0;
    if (place) return place.click();
    const known = {
      "/": () => find("find") && find("find").focus(),
      g: () => (went = performance.now()),
      j: () => step(1), k: () => step(-1),
      ".": () => pause && pause.click(),
      t: turn, "?": () => keys.showModal(),
      w: () => { const all = [...document.querySelectorAll(".why > details")], any = all.some((it) => it.open); all.forEach((it) => { it.name = ""; it.open = !any; }); },
    }[key];
    const there = known || (document.querySelector(`[data-key="${CSS.escape(key)}"]`) && (() => document.querySelector(`[data-key="${CSS.escape(key)}"]`).click()));
    if (there) { event.preventDefault(); there(); }
  });
  const here = document.querySelector(".rail [aria-current]");
  if (here && matchMedia("(max-width: 64rem)").matches) here.scrollIntoView({ inline: "center", block: "nearest" });
})();
