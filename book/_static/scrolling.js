// What scrolls sideways can be reached by the Tab key, so that arrow keys scroll it; what does not is no stop on the way.
// The theme does the same for blocks of code and for outputs.
(() => {
  "use strict";
  const BOXES = ".bd-article figure, .bd-article div.math, .bd-article .cell_output";
  const mark = (box) => {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const watcher = new ResizeObserver((entries) => new Set(entries.map(({ target }) => target.closest(BOXES))).forEach(mark));
  for (const box of document.querySelectorAll(BOXES)) {
    // Pictures and formulas come later than the box they are in.
    for (const each of [box, ...box.children]) watcher.observe(each);
  }
})();
