"use strict";
// Makes the page of a run or of a prediction one to work with: without it, all is there but moves
// not. It reads numbers from the page's data, builds no HTML from text, and sends nothing anywhere.
(() => {
  const one = (selector, inside = document) => inside.querySelector(selector);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const root = document.documentElement;
  root.classList.add("js");

  // Dark or light: as the system has it, until the reader says otherwise.
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  one("#theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
  });

  const data = JSON.parse(one("#data").textContent);
  if (!data.frame) return; // a page without a threshold to move: of several runs, say
  const [left, right, top, bottom] = data.frame;
  const labelled = data.totals.length > 1;
  const items = all("[data-score]").map((element, place) => ({
    element, place, score: Number(element.dataset.score), bad: element.dataset.group === "1",
    card: element.classList.contains("case"), verdict: "",
  }));
  const cards = items.filter((item) => item.card);
  const gallery = one("#gallery");
  const order = gallery && [...gallery.children];
  const chosen = { verdicts: new Set(), kind: "", bin: null };
  let threshold = data.threshold;

  // Four significant digits, as everywhere on the page.
  const text = (value) => {
    const size = Math.abs(value);
    if (size && (size < 1e-4 || size >= 1e4)) return value.toExponential(3).replace(/\.?0+e/, "e").replace(/e([+-])(\d)$/, "e$10$2");
    return String(Number(value.toPrecision(4)));
  };
  const share = (part, whole) => `${part} of ${whole}` + (whole ? ` (${(100 * part / whole).toFixed(1)}\u00a0%)` : "");
  const verdictOf = (item) => {
    if (threshold === null) return "";
    const rejected = item.score > threshold;
    if (!labelled) return rejected ? "rejected" : "accepted";
    return item.bad ? (rejected ? "found" : "missed") : (rejected ? "false alarm" : "passed");
  };

  // The decision about every image that is shown.
  const judge = () => {
    for (const item of items) {
      item.verdict = verdictOf(item);
      item.element.dataset.rejected = threshold === null ? "" : item.score > threshold ? "yes" : "no";
      for (const badge of all(".badge", item.element)) {
        badge.textContent = item.verdict || (item.bad ? "defective" : labelled ? "good" : "");
        badge.className = `badge ${item.verdict.replace(" ", "-")}`;
      }
      const live = item.element.parentElement.dataset.live;
      if (live) item.element.hidden = item.verdict !== live;
    }
  };

  // How many of all images a threshold rejects, shown or not.
  const overThreshold = () => {
    if (threshold === null) return null;
    const step = data.steps.find((candidate) => candidate[0] === threshold);
    return step.slice(1);
  };

  const count = () => {
    const over = overThreshold();
    if (!over) return {};
    if (!labelled) return { rejected: over[0], accepted: data.totals[0] - over[0] };
    const [good, bad] = data.totals;
    return { found: over[1], missed: bad - over[1], "false alarm": over[0], passed: good - over[0] };
  };

  const place = (value) => {
    const { low, high, log } = one(".histogram").dataset;
    const scale = Number(log) ? Math.log : (number) => number;
    const at = (scale(Math.max(value, Number(log) ? Number(low) : value)) - scale(Number(low))) / (scale(Number(high)) - scale(Number(low)));
    return left + Math.min(Math.max(at, 0), 1) * (right - left);
  };

  const marker = (name, x, y) => {
    const circle = one(`.${name} .marker`);
    if (!circle) return;
    circle.style.visibility = Number.isFinite(x) && Number.isFinite(y) ? "visible" : "hidden";
    if (circle.style.visibility === "hidden") return;
    circle.setAttribute("cx", left + x * (right - left));
    circle.setAttribute("cy", bottom - y * (bottom - top));
    one("title", circle).textContent = `threshold ${text(threshold)}: ${x.toFixed(3)}, ${y.toFixed(3)}`;
  };

  const draw = () => {
    const line = one(".histogram .threshold");
    if (line && threshold !== null) {
      const x = place(threshold);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      const label = one(".histogram .says");
      const leftHalf = x < (left + right) / 2;
      label.setAttribute("x", x + (leftHalf ? 5 : -5));
      label.setAttribute("text-anchor", leftHalf ? "start" : "end");
      label.textContent = `threshold ${text(threshold)}`;
      line.style.visibility = label.style.visibility = "visible";
    }
    for (const mark of all(".gauge u")) {
      const [low, high] = data.range;
      mark.style.left = `${100 * Math.min(Math.max((threshold - low) / (high - low), 0), 1)}%`;
    }
    if (!labelled) return;
    const { found, "false alarm": alarms } = count();
    marker("roc", alarms / data.totals[0], found / data.totals[1]);
    marker("pr", found / data.totals[1], found / (found + alarms));
  };

  const say = () => {
    const counts = count();
    const moved = threshold !== data.threshold;
    const words = labelled
      ? `${counts.found} of ${data.totals[1]} defective found, ${counts["false alarm"]} of ${data.totals[0]} good rejected`
      : `${counts.rejected} of ${data.totals[0]} rejected`;
    one("#outcome").textContent = threshold === null ? "no threshold yet" : words;
    one("#value").textContent = threshold === null ? "–" : text(threshold);
    one("#slider").setAttribute("aria-valuetext", threshold === null ? "none" : `${text(threshold)}: ${words}`);
    one("#reset").disabled = !moved;
    const tried = one("#tried");
    tried.hidden = !moved;
    for (const element of all("[data-when]")) element.hidden = (element.dataset.when === "moved") !== moved;
    for (const output of all("[data-try]")) {
      output.textContent = threshold === null ? "" : output.dataset.try ? String(Number(threshold.toPrecision(9))) : text(threshold);
    }
    for (const output of all("[data-share]")) {
      const whole = data.totals[output.dataset.share === "found" ? 1 : 0];
      output.textContent = threshold === null ? "–" : share(counts[output.dataset.share], whole);
    }
    for (const output of all("[data-count]")) output.textContent = counts[output.dataset.count] ?? "–";
    for (const heading of all("[data-heading]")) {
      const word = heading.dataset.heading;
      const shown = cards.filter((card) => card.verdict === word).length;
      one("span", heading).textContent = `${counts[word] || "none"}` + (shown < counts[word] ? `, ${shown} shown` : "");
    }
    for (const button of all("[data-verdict]")) one("b", button).textContent = cards.filter((card) => card.verdict === button.dataset.verdict).length;
  };

  // Which cards are there, and in which order.
  const inBin = (item) => {
    const { low, high, group } = chosen.bin;
    return item.score >= low && item.score < high && (!labelled || item.bad === (group === "defective"));
  };
  const filter = () => {
    if (!gallery) return;
    let shown = 0;
    for (const card of cards) {
      const { verdicts, kind, bin } = chosen;
      const fits = (!verdicts.size || verdicts.has(card.verdict)) && (!kind || card.element.dataset.kind === kind) && (!bin || inBin(card));
      card.element.hidden = !fits;
      shown += fits;
    }
    const byKind = !one("#order").value;
    for (const heading of order.filter((child) => child.tagName === "H3")) {
      let next = heading.nextElementSibling;
      while (next && next.tagName !== "H3" && next.hidden) next = next.nextElementSibling;
      heading.hidden = !byKind || !next || next.tagName === "H3";
    }
    one("#count").textContent = shown === cards.length ? `${shown} images` : `${shown} of ${cards.length} images`;
  };
  const sort = () => {
    const way = one("#order").value;
    const by = { down: (a, b) => b.score - a.score, up: (a, b) => a.score - b.score, near: (a, b) => Math.abs(a.score - threshold) - Math.abs(b.score - threshold) }[way];
    gallery.replaceChildren(...(by ? [...order.filter((child) => child.tagName === "H3"), ...[...cards].sort(by).map((card) => card.element)] : order));
    filter();
  };

  const decide = (value) => {
    threshold = value;
    judge();
    draw();
    say();
    if (gallery) one("#order").value === "near" ? sort() : filter();
  };

  const slider = one("#slider");
  if (slider && data.steps.length) {
    const own = slider.value;
    slider.addEventListener("input", () => decide(data.steps[slider.value][0]));
    one("#reset").addEventListener("click", () => {
      slider.value = own;
      decide(data.threshold);
    });
    decide(threshold);
  }

  if (!gallery) return;
  for (const button of all("button[data-verdict]")) {
    button.addEventListener("click", () => {
      const word = button.dataset.verdict;
      chosen.verdicts.has(word) ? chosen.verdicts.delete(word) : chosen.verdicts.add(word);
      button.setAttribute("aria-pressed", chosen.verdicts.has(word));
      filter();
    });
  }
  one("#kind")?.addEventListener("change", (event) => {
    chosen.kind = event.target.value;
    filter();
  });
  one("#order").addEventListener("change", sort);
  one("#opacity").addEventListener("input", (event) => root.style.setProperty("--map", event.target.value / 100));

  // A bar of the histogram leads to its images.
  const choose = (bin) => {
    chosen.bin = bin;
    const button = one("#bin");
    button.hidden = !bin;
    if (bin) button.textContent = `score ${text(bin.low)} to ${text(bin.high)}, ${bin.group} ×`;
    filter();
  };
  for (const link of all(".bin")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const { low, high, group } = link.dataset;
      choose({ low: Number(low), high: Number(high), group });
      one(".tools").scrollIntoView();
      one("#bin").focus({ preventScroll: true });
    });
  }
  one("#bin").addEventListener("click", () => {
    choose(null);
    one("#order").focus();
  });

  // A tile leads to its card, also where a filter hides it.
  for (const link of all("a.tile")) {
    link.addEventListener("click", () => {
      const card = one(link.getAttribute("href"));
      if (!card.hidden) return;
      chosen.verdicts.clear();
      all("button[data-verdict]").forEach((button) => button.setAttribute("aria-pressed", false));
      chosen.kind = "";
      if (one("#kind")) one("#kind").value = "";
      choose(null);
    });
  }

  // Keys: j and k go from card to card; of an enlarged picture the arrows go on, Escape goes back.
  const visible = () => all(".case", gallery).filter((card) => !card.hidden);
  const step = (from, by) => {
    const shown = visible();
    const at = shown.indexOf(from);
    return at < 0 ? shown[by > 0 ? 0 : shown.length - 1] : shown[at + by];
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const enlarged = one(".zoom input:checked");
    const by = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1 }[event.key];
    if (enlarged && event.key === "Escape") {
      enlarged.checked = false;
      enlarged.focus({ preventScroll: true });
    } else if (enlarged && by && event.key.startsWith("Arrow")) {
      const figure = enlarged.closest("[data-panel]");
      if (!figure) return;
      event.preventDefault();
      const seen = (card) => card && one(`[data-panel="${figure.dataset.panel}"] .zoom`, card);
      let card = step(figure.closest(".case"), by);
      while (card && !seen(card)?.offsetParent) card = step(card, by);
      if (!card) return;
      enlarged.checked = false;
      card.scrollIntoView({ block: "center" });
      const next = one("input", seen(card));
      next.checked = true;
      next.focus({ preventScroll: true });
    } else if (!enlarged && by && !event.key.startsWith("Arrow") && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      const card = step(document.activeElement.closest(".case"), by);
      if (!card) return;
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  });
})();
