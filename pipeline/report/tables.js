"use strict";
// Tables of class "data": rows sort by a column (a click or Enter on its head: up, down, as it was), and the table as it
// stands can be copied as LaTeX (booktabs), CSV or Markdown. Cells may bear `data-value`, which sorts and goes into CSV.
// A <tbody class="fixed"> stays where it is. Adds to `page`:
//   page.copy(parent, label, () => text)     a button; where the browser refuses the clipboard, the text stands selected
Object.assign(coppice.page, (() => {
  const { html } = coppice.page;

  function copy(parent, label, text) {
    const button = html("button", { type: "button" }, parent, label);
    button.addEventListener("click", async () => {
      const done = await copied(parent, text());
      button.textContent = done ? "copied" : label;
      if (done) setTimeout(() => (button.textContent = label), 1500);
    });
    return button;
  }

  // Pages from disk and in sandboxed frames have no clipboard: then an older way, and at last the text itself.
  async function copied(parent, text) {
    parent.querySelector("textarea")?.remove();
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = html("textarea", { readonly: "", "aria-label": "press Ctrl-C to copy" }, parent);
      area.value = text;
      area.focus();
      area.select();
      const done = document.execCommand("copy");
      if (done) area.remove();
      return done;
    }
  }

  // A cell as text of a format: its <b> bold, its <sub> as index, its line breaks as spaces.
  function words(node, format) {
    const parts = [...node.childNodes].map((child) => {
      if (child.nodeType === Node.TEXT_NODE) return format.text(child.textContent.replace(/\s+/g, " "));
      if (child.nodeType !== Node.ELEMENT_NODE) return "";
      if (child.tagName === "BR") return " ";
      const inner = words(child, format);
      if (child.tagName === "SUB") return format.sub(inner);
      return child.tagName === "B" && inner.trim() ? format.bold(inner.trim()) : inner;
    });
    return parts.join("");
  }
  const trimmed = (node, format) => words(node, format).replace(/\s+/g, " ").trim();

  const TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}", "−": "$-$",
    "±": "$\\pm$", "×": "$\\times$", "·": "$\\cdot$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "Δ": "$\\Delta$", "λ": "$\\lambda$",
    "–": "--", "…": "\\dots{}", "°": "$^\\circ$", "√": "$\\surd$", "≤": "$\\leq$", "≥": "$\\geq$",
  };
  const latex = {
    text: (text) => text.replace(/[\\&%$#_{}~^<>|"−±×·↑↓Δλ–…°√≤≥]/g, (sign) => TEX[sign]),
    sub: (text) => `$_{\\mathrm{${text}}}$`,
    bold: (text) => `\\textbf{${text}}`,
  };
  const markdown = {
    text: (text) => text.replace(/[\\`*_{}[\]<>|~#$&]/g, "\\$&"),
    sub: (text) => `\\_${text}`,
    bold: (text) => `**${text}**`,
  };
  const plain = { text: (text) => text, sub: (text) => `_${text}`, bold: (text) => text };

  const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));
  function field(cell) {
    const text = (cell.dataset.value ?? trimmed(cell, plain)).replace(/^−(?=[\d.])/, "-").replace(/^–$/, "");
    // A name that begins like a formula must not become one in a spreadsheet.
    const safe = /^[=+\-@\t\r]/.test(text) && !isNumber(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  }

  const rowsOf = (table) => [...table.rows].map((row) => [...row.cells]);
  const numeric = (table, column) => rowsOf(table).slice(1).some((row) => row[column] && isNumber(key(row[column])));
  const FORMATS = {
    LaTeX: (table) => {
      const [head, ...body] = rowsOf(table).map((row) => `${row.map((cell) => trimmed(cell, latex).replace(/(?<!\\)\$\$/g, "")).join(" & ")} \\\\`);
      const columns = rowsOf(table)[0].map((_, column) => (numeric(table, column) ? "r" : "l")).join("");
      return ["% \\usepackage{booktabs}", `\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
    },
    CSV: (table) => `${rowsOf(table).map((row) => row.map(field).join(",")).join("\n")}\n`,
    Markdown: (table) => {
      const [head, ...body] = rowsOf(table).map((row) => `| ${row.map((cell) => trimmed(cell, markdown)).join(" | ")} |`);
      const line = rowsOf(table)[0].map((_, column) => (numeric(table, column) ? "---:" : "---"));
      return `${[head, `| ${line.join(" | ")} |`, ...body].join("\n")}\n`;
    },
  };

  // What a cell sorts by: its value, or the number that its text begins with, in its unit; or else the text.
  function key(cell) {
    const text = cell.dataset.value ?? trimmed(cell, plain);
    if (isNumber(text)) return text;
    const found = /^([+−-]?[\d.,]+(?:e[+-]?\d+)?)\s*([kMG]?)\s*(?:[×%].*|±.*)?$/.exec(text);
    if (!found) return text === "–" ? "" : text;
    return String(Number(found[1].replace("−", "-").replace(/,/g, "")) * { k: 1e3, M: 1e6, G: 1e9, "": 1 }[found[2]]);
  }

  function sort(table, column, direction) {
    const body = [...table.tBodies].find((one) => !one.classList.contains("fixed"));
    const rows = [...body.rows];
    rows.forEach((row, index) => (row.dataset.place ??= index));
    const place = (row) => Number(row.dataset.place);
    rows.sort((one, other) => {
      if (!direction) return place(one) - place(other);
      const [a, b] = [key(one.cells[column]), key(other.cells[column])];
      if (a === "" || b === "") return (a === "") - (b === "") || place(one) - place(other);
      const order = isNumber(a) && isNumber(b) ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      return (direction === "ascending" ? order : -order) || place(one) - place(other);
    });
    body.append(...rows);
  }

  for (const table of document.querySelectorAll("table.data")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = html("button", { type: "button", "aria-label": head.textContent.trim() ? null : "name" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const [first, second] = numeric(table, column) ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = { [first]: second, [second]: "" }[head.getAttribute("aria-sort") ?? ""] ?? first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) head.setAttribute("aria-sort", next);
        sort(table, column, next);
      });
    });
    const bar = html("div", { class: "copy" }, null, "A click on a head sorts. Copy as ");
    for (const [name, write] of Object.entries(FORMATS)) copy(bar, name, () => write(table));
    (table.closest(".scroll") ?? table).after(bar);
  }

  for (const command of document.querySelectorAll("code.command")) copy(command.parentNode, "copy", () => command.textContent);

  return { copy };
})());
