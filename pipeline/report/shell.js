"use strict";
// The page around the figures: a button for light and dark, the section in view marked above, and the row of a job that
// an address leads to, in a list that was closed.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = coppice.page.html("button", { type: "button", class: "theme" }, document.querySelector("header"));
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const name = () => (theme.textContent = isDark() ? "light page" : "dark page");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  dark.addEventListener("change", name);
  name();

  const tabs = new Map([...document.querySelectorAll("nav a")].map((tab) => [tab.hash.slice(1), tab]));
  const mark = () => {
    const above = [...tabs.keys()].filter((id) => document.getElementById(id)?.getBoundingClientRect().top < innerHeight / 3);
    const shown = above[above.length - 1];
    tabs.forEach((tab, id) => (id === shown ? tab.setAttribute("aria-current", "true") : tab.removeAttribute("aria-current")));
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();

  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const closed = target?.closest("details:not([open])");
    if (!closed) return;
    closed.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
}
