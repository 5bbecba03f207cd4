// Filters the overview, moves the depth sliders, copies texts, and says where a picture cannot be shown.
(() => {
  "use strict";

  // What this script says, in the language of the page.
  const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");
  const say = (text) => words[text] ?? text;

  const PAPER = 640;  // the room of a chart on a sheet of A4 or Letter, in pixels

  function filterRuns() {
    const form = document.querySelector("[data-filter]");
    if (!form) return;
    const text = form.querySelector("input[type=search]");
    const failedOnly = form.querySelector("input[type=checkbox]");
    const shown = form.querySelector("output");
    const rows = [...document.querySelectorAll("[data-run]")];
    const apply = () => {
      const asked = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const said = row.textContent.toLowerCase();
        row.hidden = (failedOnly.checked && row.dataset.run !== "failed") || !asked.every((word) => said.includes(word));
        count += row.hidden ? 0 : 1;
      }
      shown.textContent = shown.textContent.replace(/\d+/, count);
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    text.addEventListener("input", apply);
    failedOnly.addEventListener("change", apply);
    apply();  // a browser keeps what was typed when a page is loaded again
  }

  // A heading that can be sorted by becomes a button; a second press turns the order round.
  function sortRuns() {
    const table = document.querySelector("table.runs");
    for (const head of table?.querySelectorAll("[data-sort]") ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const key = head.dataset.sort, up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const number = (row) => (row.dataset[key] === "inf" ? Infinity : Number(row.dataset[key]));
        const less = (a, b) => (key === "title" ? a.dataset.title.localeCompare(b.dataset.title) : number(a) - number(b) || 0);
        const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? less(a, b) : less(b, a)));
        table.tBodies[0].append(...rows);
      });
    }
  }

  function slideDepths() {
    for (const input of document.querySelectorAll("[data-slider]")) {
      const apply = () => {
        input.closest("[data-split]").style.setProperty("--split", `${input.value}%`);
        input.setAttribute("aria-valuetext", `${input.value} % ${say("predicted")}, ${100 - input.value} % ${say("true")}`);
      };
      input.addEventListener("input", apply);
      apply();
    }
  }

  // A page opened as a file may not reach the clipboard: then the text is selected, and Ctrl+C copies it.
  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    let done = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      done = true;
    } catch {
      const selection = window.getSelection();
      selection.selectAllChildren(source);
      done = document.execCommand("copy");
    }
    const label = button.textContent;
    button.textContent = say(done ? "Copied" : "Selected: press Ctrl+C");
    window.setTimeout(() => { button.textContent = label; }, 1800);
  }

  function tellBroken(picture) {
    const note = document.createElement("p");
    note.className = "missing";
    note.textContent = `${picture.alt}: ${say("this picture cannot be shown.")}`;
    picture.replaceWith(note);
  }

  filterRuns();
  sortRuns();
  slideDepths();
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button && !button.dataset.busy) {
      button.dataset.busy = "yes";
      copy(button).finally(() => window.setTimeout(() => delete button.dataset.busy, 1800));
    }
  });
  for (const picture of document.querySelectorAll("img[data-picture]")) {
    if (picture.complete && picture.naturalWidth === 0) tellBroken(picture);
    else picture.addEventListener("error", () => tellBroken(picture));
  }
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details[data-print]")) folded.open = true;
    // A chart keeps the width that it was drawn with: on paper it is made smaller as a whole.
    for (const plot of document.querySelectorAll("[data-plot]")) {
      const wide = plot.clientWidth;
      plot.style.width = `${wide}px`;
      plot.style.zoom = Math.min(1, PAPER / wide);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const plot of document.querySelectorAll("[data-plot]")) plot.style.width = plot.style.zoom = "";
  });
})();
