"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  if (location.hash === "#dark" || location.hash === "#light") root.dataset.theme = location.hash.slice(1);
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();

  // Without this script a <title> is the browser's own, slow tip; the SVG's own title stays.
  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll("svg.plot :not(svg) > title")) {
    const mark = title.parentNode;
    mark.dataset.tip = title.textContent;
    title.remove();
  }
  const move = (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18 + tip.offsetHeight < innerHeight;
    const top = below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 10;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  for (const svg of document.querySelectorAll("svg.plot")) {
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  for (const toggle of document.querySelectorAll("[data-toggle]")) {
    toggle.addEventListener("click", () => {
      const show = toggle.getAttribute("aria-pressed") === "false";
      toggle.setAttribute("aria-pressed", String(show));
      for (const mark of toggle.closest("figure").querySelectorAll("[data-series]")) {
        if (mark.dataset.series === toggle.dataset.toggle) mark.style.display = show ? "" : "none";
      }
    });
  }
})();
