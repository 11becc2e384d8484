// What a page gains from a script; without one everything is there to read.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const button = (text, label, action) => {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", textContent: text, className: "tool", onclick: action });
    made.setAttribute("aria-label", label);
    return made;
  };
  const save = (name, address) => Object.assign(document.createElement("a"), { download: name, href: address }).click();

  document.documentElement.classList.add("scripted"); // code is hidden until it is asked for
  const codeSwitch = document.getElementById("code-switch");
  if (codeSwitch) {
    codeSwitch.hidden = false;
    codeSwitch.onclick = () => {
      const shown = codeSwitch.getAttribute("aria-pressed") !== "true";
      all("details.code").forEach((part) => (part.open = shown));
      codeSwitch.setAttribute("aria-pressed", shown);
      codeSwitch.textContent = shown ? "Hide all code" : "Show all code";
    };
  }

  const links = new Map(all("nav.contents a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const mark = () => {
    const passed = all("h2[id]").filter((heading) => links.has(heading.id) && heading.getBoundingClientRect().top < innerHeight / 3);
    links.forEach((link) => link.removeAttribute("aria-current"));
    if (passed.length) links.get(passed.at(-1).id).setAttribute("aria-current", "true");
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  for (const link of all("a.anchor-link")) {
    link.setAttribute("aria-label", "Copy the address of this section");
    link.onclick = () => navigator.clipboard?.writeText(new URL(link.hash, location.href).href).catch(() => {});
  }

  for (const figure of all("figure.plot")) {
    const picture = figure.querySelector("img"), kind = picture.src.match(/^data:image\/(\w+)/)[1];
    const name = `${figure.dataset.name}.${kind}`;
    figure.querySelector("figcaption").append(button("Download", `Download ${name}`, () => save(name, picture.src)));
  }
  for (const [number, table] of all(".scroll > table").filter((one) => !one.closest(".slider")).entries()) {
    const name = `${document.title.replace(/\W+/g, "-")}-${number + 1}.csv`;
    const quoted = (cell) => `"${cell.innerText.replace(/"/g, '""').trim()}"`;
    const content = () => [...table.rows].map((row) => [...row.cells].flatMap((cell) => Array(cell.colSpan).fill(quoted(cell))).join(",")).join("\n");
    const tool = button("CSV", `Download table ${number + 1} as CSV`, () => save(name, `data:text/csv;charset=utf-8,${encodeURIComponent(content())}`));
    table.parentElement.after(tool);
  }

  for (const gallery of all(".gallery")) {
    const choices = all("select[name]", gallery), cases = all(".case", gallery);
    const order = gallery.querySelector("select.order"), names = new Intl.Collator("en", { numeric: true });
    if (order) {
      order.onchange = () => {
        const key = (one) => one.dataset[order.value];
        const before = order.value === "name" ? (a, b) => names.compare(key(a), key(b)) : (a, b) => key(b) - key(a);
        gallery.querySelector(".cases").append(...cases.sort(before));
      };
    }
    const show = () => {
      for (const one of cases) one.hidden = choices.some((choice) => choice.value && one.dataset[choice.name] !== choice.value);
      gallery.querySelector("[role=status]").textContent = `${cases.filter((one) => !one.hidden).length} of ${cases.length} films`;
    };
    gallery.querySelector(".filters").hidden = false;
    choices.forEach((choice) => (choice.onchange = show));
    const dialog = gallery.querySelector("dialog");
    for (const one of cases) {
      one.querySelector("button").onclick = () => {
        dialog.querySelector("div").replaceChildren(...all("img, p", one).map((part) => part.cloneNode(true)));
        dialog.showModal();
      };
    }
    show();
  }
})();
