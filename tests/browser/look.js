// What a page looks like from inside: `whole` after it has loaded, `narrow` on a phone, `dark` in its dark theme.
async (what) => {
  const main = document.querySelector("main, [role=main]") || document.body;
  const shown = (element) => element.checkVisibility({ checkVisibilityCSS: true });
  const words = (element) => {
    const inside = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
    const classes = [...element.classList].slice(0, 3).map((name) => `.${name}`).join("");
    return `<${element.localName}${element.id ? `#${element.id}` : ""}${classes}> ${inside}`.trim();
  };
  const named = (image) => (image.getAttribute("src") || "no source").slice(0, 80);

  // ---- Pictures ----
  const SIZE = 120;
  function pixels(image, ground) {
    const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = ground;
    pen.fillRect(0, 0, SIZE, SIZE);
    pen.drawImage(image, 0, 0, SIZE, SIZE);
    return pen.getImageData(0, 0, SIZE, SIZE).data;
  }
  // A picture that was not found, has no size, or is of one colour shows nothing.
  async function empty(image) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    if (!image.naturalWidth || !image.naturalHeight) return true;
    const drawn = new Uint32Array(pixels(image, "#fff").buffer);
    return drawn.every((pixel) => pixel === drawn[0]);
  }
  async function pictures() {
    const images = [...main.querySelectorAll("img")].map(async (image) => ({
      name: named(image), alt: (image.getAttribute("alt") || "").trim(), empty: await empty(image),
    }));
    // A drawing of a script's: it is named, or hidden from those who cannot see it because words beside it say the same.
    const drawings = [...main.querySelectorAll("canvas, figure svg")].filter(shown).map((each) => ({
      name: words(each), alt: each.getAttribute("aria-label") || (each.closest("[aria-hidden=true]") ? "hidden" : ""),
      empty: !each.getBoundingClientRect().width || (each.localName === "svg" && !each.childElementCount),
    }));
    return [...(await Promise.all(images)), ...drawings];
  }

  // ---- Colours ----
  // The browser resolves a colour, whatever it is written in.
  function rgba(colour) {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  }
  const linear = (value) => (value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  function contrast(one, other) {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }
  function ground(element) {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "#fff";
  }

  const looks = {
    // Milliseconds until the first text or picture, 0 if there is none. It may be written down after the page has loaded.
    painted: () => new Promise((resolve) => {
      new PerformanceObserver((list) => {
        const paint = list.getEntriesByName("first-contentful-paint")[0];
        if (paint) resolve(paint.startTime);
      }).observe({ type: "paint", buffered: true });
      setTimeout(() => resolve(0), 10000);
    }),

    async whole() {
      if (window.MathJax?.startup) await window.MathJax.startup.promise;
      await document.fonts.ready;
      return {
        firstPaint: await looks.painted(),
        anchors: [...document.querySelectorAll("[id], a[name]")].map((each) => each.id || each.name),
        links: [...document.querySelectorAll("a[href], area[href]")].map((each) => each.href),
        pictures: await pictures(),
        interactive: document.querySelectorAll("[data-interactive]").length,
      };
    },

    // Pictures are drawn with dark ink: where they are not their own ground, a light one must lie behind them. Words in a
    // drawing that follows the page's colours (axe does not read them) must stand out.
    async dark() {
      const found = [];
      for (const image of main.querySelectorAll("img")) {
        if (!shown(image) || !image.naturalWidth) continue;
        const behind = ground(image);
        const drawn = pixels(image, behind);
        let light = 0;
        for (let at = 0; at < drawn.length; at += 4) light += luminance(drawn.slice(at, at + 3)) > 0.4;
        if (light < 0.25 * SIZE * SIZE) found.push(`${named(image)} lies on ${behind}`);
      }
      for (const text of main.querySelectorAll("svg text")) {
        if (!shown(text)) continue;
        // Letters with a rim stand on it, whatever is drawn below.
        const { fill, stroke, paintOrder, strokeWidth } = getComputedStyle(text);
        const rim = paintOrder.startsWith("stroke") && parseFloat(strokeWidth) >= 2 ? stroke : ground(text);
        const ratio = contrast(rgba(fill), rgba(rim));
        if (ratio < 4.5) found.push(`${words(text)} stands out by ${ratio.toFixed(1)} only`);
      }
      return found;
    },

    // The theme looks 0.3 s after a page has changed its width what scrolls now.
    async settled() {
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      await new Promise((resolve) => setTimeout(resolve, 350));
    },

    // What reaches past the edge, unless something around it scrolls or cuts it off.
    async narrow() {
      const root = document.documentElement;
      if (root.scrollWidth <= root.clientWidth) return [];
      const cut = (element) => {
        for (let each = element.parentElement; each && each !== document.body; each = each.parentElement) {
          if (getComputedStyle(each).overflowX !== "visible") return true;
        }
        return false;
      };
      const wide = [...document.body.querySelectorAll("*")].filter(
        (each) => each.getBoundingClientRect().right > root.clientWidth + 1 && shown(each) && !cut(each));
      const inner = wide.filter((each) => !wide.some((other) => other !== each && each.contains(other)));
      return [`${root.scrollWidth} px: ${inner.slice(0, 3).map(words).join("; ")}`];
    },
  };
  return looks[what]();
}
