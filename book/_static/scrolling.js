// What scrolls sideways can be reached by the Tab key, so that arrow keys scroll it; what does not is no stop on the way.
// The theme does the same for blocks of code and outputs.
(() => {
  "use strict";
  const mark = (element) => {
    if (element.scrollWidth > element.clientWidth + 1) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  };
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  document.querySelectorAll(".bd-article figure, .bd-article div.math, .bd-article .cell_output").forEach((element) => {
    watcher.observe(element);
    // Formulas and pictures come later than the box they are in.
    for (const child of element.children) watcher.observe(child);
  });
})();
