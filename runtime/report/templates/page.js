// What a page does beyond being read: sorts tables, draws figures with zoom and hover, plays videos, switches the theme.
// It fetches nothing and evaluates no text. Without it everything is still there: figures as still drawings.
"use strict";
(() => {
  const root = document.documentElement;
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // ---- theme -------------------------------------------------------------------------------------------------------
  const store = {
    get: () => { try { return localStorage.getItem("harness-theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("harness-theme", theme); } catch { /* a page from disk may not */ } },
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const themeButton = document.getElementById("theme");
  const themed = () => {
    if (themeButton) {
      const other = theme() === "dark" ? "light" : "dark";
      themeButton.textContent = other === "dark" ? "☾ dark" : "☀ light";
      themeButton.setAttribute("aria-label", `switch to ${other} colours`);
    }
    redraw();
  };
  if (["light", "dark"].includes(store.get())) root.dataset.theme = store.get();
  if (themeButton) {
    themeButton.hidden = false;
    themeButton.addEventListener("click", () => {
      root.dataset.theme = theme() === "dark" ? "light" : "dark";
      store.set(root.dataset.theme);
      themed();
    });
  }
  system.addEventListener("change", () => themed());

  // ---- tables ------------------------------------------------------------------------------------------------------
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    const number = text === "" ? NaN : Number(text);
    return { text, number };
  };
  const sort = (table, column, up) => {
    for (const body of table.tBodies) {
      // What trivial predictors reach, and what was published elsewhere, stays below.
      const rows = [...body.rows].filter((row) => !row.classList.contains("floor"));
      const last = [...body.rows].filter((row) => row.classList.contains("floor"));
      const sign = up ? 1 : -1;
      const numeric = rows.some((row) => !Number.isNaN(value(row, column).number));
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (!numeric) return sign * x.text.localeCompare(y.text, undefined, { numeric: true });
        // What has no number is last either way.
        if (Number.isNaN(x.number) || Number.isNaN(y.number)) return Number.isNaN(x.number) - Number.isNaN(y.number);
        return sign * (x.number - y.number);
      });
      body.append(...rows, ...last);
    }
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", "sort");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        // Numbers from the best down first: that is what one looks for.
        const up = now === "none" ? head.dataset.first === "up" : now === "descending";
        for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, column, up);
      });
    });
  }

  // ---- figures -----------------------------------------------------------------------------------------------------
  const data = document.getElementById("figures");
  const figures = data ? JSON.parse(data.textContent) : [];
  const charts = new Map();
  window.harnessCharts = charts;
  const probe = make("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const DASHES = ["solid", [9, 4], [2.5, 3], [9, 3, 2.5, 3]];
  const finite = (values) => values.filter((v) => v !== null && Number.isFinite(v));
  const distinct = (names) => [...new Set(names)];
  const stats = (values) => {
    const list = finite(values);
    if (!list.length) return null;
    const mean = list.reduce((a, b) => a + b, 0) / list.length;
    const squares = list.reduce((a, b) => a + (b - mean) ** 2, 0);
    return { mean, sd: list.length > 1 ? Math.sqrt(squares / (list.length - 1)) : 0, n: list.length, list };
  };
  const shown = (v, percent) => {
    if (v === null || !Number.isFinite(v)) return "–";
    if (percent) return v.toFixed(1);
    if (Number.isInteger(v) && Math.abs(v) < 1e15) return String(v);
    return Math.abs(v) >= 1e-3 && Math.abs(v) < 1e4 ? v.toFixed(3) : v.toExponential(3);
  };
  const signed = (text) => text.replace("-", "−");
  const tick = (v) => signed(Math.abs(v) >= 1e7 || (v !== 0 && Math.abs(v) < 1e-4) ? v.toExponential(1) : String(+v.toFixed(5)));
  const unit = (label, percent) => (percent ? (label ? `${label}, %` : "%") : label);

  /// A tooltip as elements: names of classes and steps are texts, whatever they contain.
  const tip = (title, rows) => {
    const box = make("div", "tip");
    box.append(make("strong", "", title));
    for (const [ink, name, text] of rows) {
      const row = make("div");
      if (ink) {
        const key = make("span", "key");
        key.style.background = ink;
        row.append(key);
      }
      row.append(make("span", "", name), make("b", "", text));
      box.append(row);
    }
    return box;
  };

  const base = (figure, pick) => {
    const [ink, soft, grid, paper] = ["ink", "soft", "line", "paper"].map(colour);
    const axis = {
      axisLine: { lineStyle: { color: grid } }, axisTick: { show: false }, splitLine: { lineStyle: { color: grid } },
      axisLabel: { color: soft, fontSize: 12, formatter: tick, hideOverlap: true }, nameTextStyle: { color: soft, fontSize: 12 },
      nameLocation: "middle", type: "value", scale: true,
    };
    return {
      ink, soft, grid, paper, axis,
      option: {
        animation: false,
        textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: ink },
        tooltip: {
          confine: true, backgroundColor: paper, borderColor: grid, textStyle: { color: ink, fontSize: 13 },
          transitionDuration: 0, ...pick,
        },
        toolbox: { itemSize: 0, showTitle: false, feature: { dataZoom: { filterMode: "none", brushStyle: { color: soft, opacity: 0.15 } } } },
        dataZoom: [
          { type: "inside", xAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, moveOnMouseWheel: false },
          { type: "inside", yAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, moveOnMouseWheel: false },
        ],
      },
    };
  };
  const legend = (names, b, icon) => ({
    show: names.length > 1, type: "scroll", top: 0, left: 0, data: names, icon, itemWidth: icon ? 12 : 26, itemHeight: 10,
    textStyle: { color: b.ink, fontSize: 12 }, inactiveColor: b.grid, pageTextStyle: { color: b.soft },
  });

  const curves = (figure, lines, scale) => {
    const b = base(figure, { trigger: "axis", axisPointer: { lineStyle: { color: colour("soft") } } });
    const names = distinct(lines.map((line) => line.label));
    const series = [];
    const means = names.map((name, index) => {
      const ink = colour(`c${index % 8}`);
      const members = lines.filter((line) => line.label === name)
        .map((line) => line.x.map((x, at) => [x, line.y[at] === null ? null : line.y[at] * scale]).filter((p) => p[0] !== null && p[1] !== null));
      const at = new Map();
      members.forEach((points) => points.forEach(([x, y]) => at.set(x, [...(at.get(x) ?? []), y])));
      const mean = [...at].filter(([, ys]) => ys.length === members.length).map(([x, ys]) => ({ x, ...stats(ys) })).sort((p, q) => p.x - q.x);
      if (members.length > 1 && mean.length > 1) {
        const outline = [...mean.map((p) => [p.x, p.mean + p.sd]), ...mean.map((p) => [p.x, p.mean - p.sd]).reverse()];
        series.push({
          type: "custom", name, silent: true, clip: true, z: 1, itemStyle: { color: ink }, tooltip: { show: false }, data: [outline[0]],
          renderItem: (_, api) => ({ type: "polygon", shape: { points: outline.map((p) => api.coord(p)) }, style: { fill: ink, opacity: 0.15 } }),
        });
        members.forEach((points) => series.push({
          type: "line", name, data: points, showSymbol: false, silent: true, z: 2, lineStyle: { width: 1, opacity: 0.45, color: ink },
          itemStyle: { color: ink }, tooltip: { show: false }, emphasis: { disabled: true },
        }));
      }
      series.push({
        type: "line", name, id: `mean ${index}`, data: mean.map((p) => [p.x, p.mean]), showSymbol: mean.length < 2, symbol: "circle", symbolSize: 7, z: 3,
        lineStyle: { width: 2.2, color: ink, type: DASHES[index % 4] }, itemStyle: { color: ink }, emphasis: { disabled: true },
      });
      return { name, ink, mean };
    });
    const whole = lines.every((line) => line.x.every((x) => x === null || Number.isInteger(x)));
    Object.assign(b.option, {
      grid: { left: 62, right: 16, top: names.length > 1 ? 34 : 12, bottom: 44 },
      legend: legend(names, b),
      xAxis: { ...b.axis, name: figure.x_label, nameGap: 28, splitLine: { show: false }, minInterval: whole ? 1 : undefined, min: "dataMin", max: "dataMax" },
      yAxis: { ...b.axis, name: unit(figure.y_label, figure.percent), nameGap: 44 },
      series,
    });
    b.option.tooltip.formatter = (params) => {
      const x = params[0]?.axisValue ?? 0;
      const rows = means.flatMap(({ name, ink, mean }) => {
        const point = mean.find((p) => p.x === x);
        if (!point) return [];
        const sd = point.n > 1 ? ` ± ${shown(point.sd, figure.percent)}` : "";
        return [[ink, name, signed(shown(point.mean, figure.percent)) + sd]];
      });
      return tip(`${figure.x_label} ${tick(x)}`, rows);
    };
    return b.option;
  };

  /// A row for each name: bars from zero, or points with an interval around zero.
  const rows = (figure, names, series, entries, bars, scale, width) => {
    const b = base(figure, { trigger: "item" });
    const lanes = bars ? Math.max(series.length, 1) : 1;
    const size = 0.74 / lanes;
    const longest = Math.max(...names.map((name) => name.length)) * 7.2 + 20;
    const left = Math.min(longest, width * 0.4);
    const percent = figure.percent;
    const all = series.map((name, number) => {
      const own = entries.filter((entry) => entry.series === name);
      const ink = colour(`c${number % 8}`);
      return {
        type: "custom", name: name || figure.y_label, clip: true, itemStyle: { color: ink },
        encode: { x: [1, 2, 3], y: 0 },
        data: own.map((entry) => ({ value: [entry.row, entry.mean * scale, entry.low * scale, entry.high * scale], entry })),
        renderItem: (params, api) => {
          const entry = own[params.dataIndex];
          const row = api.value(0);
          const [, height] = api.size([0, 1]);
          const [zero, middle] = api.coord([0, row]);
          const y = middle + ((bars ? number : 0) - (bars ? (lanes - 1) / 2 : 0)) * size * height;
          const at = (v) => api.coord([v * scale, row])[0];
          const line = (x1, y1, x2, y2, w, stroke) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: w } });
          const children = [];
          const [mean, low, high] = [entry.mean, entry.low, entry.high].map(at);
          const half = size * height * 0.42;
          if (bars) children.push({ type: "rect", shape: { x: Math.min(zero, mean), y: y - half, width: Math.max(Math.abs(mean - zero), 0.5), height: 2 * half }, style: { fill: ink, opacity: 0.8 } });
          if (entry.high > entry.low) {
            const [w, stroke] = bars ? [1.2, b.ink] : [2.2, ink];
            children.push(line(low, y, high, y, w, stroke), line(low, y - 3, low, y + 3, w, stroke), line(high, y - 3, high, y + 3, w, stroke));
          }
          if (!bars) children.push({ type: "circle", shape: { cx: mean, cy: y, r: 4.5 }, style: { fill: ink } });
          const singles = finite(entry.values);
          if (singles.length > 1) singles.forEach((v, index) => {
            const aside = (index - (singles.length - 1) / 2) * ((bars ? 0.5 : 0.35) * 2 * half / singles.length);
            children.push({ type: "circle", shape: { cx: at(v), cy: y + aside, r: 2.6 }, style: { fill: b.paper, stroke: b.ink, lineWidth: 1 } });
          });
          return { type: "group", children };
        },
      };
    });
    const ends = entries.flatMap((entry) => [entry.mean, entry.low, entry.high, 0, ...finite(entry.values)]).map((v) => v * scale);
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const room = (high - low || 1) * 0.05;
    Object.assign(b.option, {
      grid: { left, right: 18, top: series.length > 1 ? 30 : 6, bottom: 44 },
      legend: legend(series, b, "roundRect"),
      yAxis: { ...b.axis, type: "category", inverse: true, data: names, axisLabel: { color: b.ink, fontSize: 12, width: left - 12, overflow: "truncate", interval: 0 }, splitLine: { show: false } },
      xAxis: { ...b.axis, name: unit(figure.y_label, percent), nameGap: 28, min: low < 0 ? low - room : 0, max: high > 0 ? high + room : 0, axisLabel: { ...b.axis.axisLabel, showMinLabel: low >= 0, showMaxLabel: false } },
      series: all,
    });
    if (low < 0) all[0].markLine = { silent: true, symbol: "none", label: { show: false }, lineStyle: { color: b.soft, type: "solid" }, data: [{ xAxis: 0 }] };
    b.option.tooltip.formatter = (params) => {
      const entry = params.data.entry;
      const text = (v) => signed(shown(v * scale, percent));
      const list = [[params.color, entry.series || figure.y_label, text(entry.mean)]];
      if (entry.high > entry.low) list.push(["", bars ? "mean − sd to mean + sd" : "95 % interval", `${text(entry.low)} to ${text(entry.high)}`]);
      if (entry.values.length > 1) list.push(["", `each of ${entry.values.length}`, entry.values.map((v) => (v === null ? "–" : text(v))).join(", ")]);
      return tip(names[entry.row], list);
    };
    return b.option;
  };

  const points = (figure, marks, scale, xScale, xPercent) => {
    const b = base(figure, { trigger: "item" });
    const series = distinct(marks.map((mark) => mark.series));
    const drawn = marks.map((mark) => ({ mark, x: stats(mark.x), y: stats(mark.values) })).filter((m) => m.x && m.y);
    const all = series.map((name, number) => {
      const own = drawn.filter((m) => m.mark.series === name);
      const ink = colour(`c${number % 8}`);
      return {
        type: "custom", name, clip: true, itemStyle: { color: ink }, encode: { x: [0, 2, 3], y: [1, 4, 5] },
        data: own.map(({ mark, x, y }) => ({
          mark, x, y,
          value: [x.mean * xScale, y.mean * scale, (x.mean - x.sd) * xScale, (x.mean + x.sd) * xScale, (y.mean - y.sd) * scale, (y.mean + y.sd) * scale],
        })),
        renderItem: (params, api) => {
          const { mark } = own[params.dataIndex];
          const v = (at) => api.value(at);
          const [cx, cy] = api.coord([v(0), v(1)]);
          const line = (from, to) => ({ type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }, style: { stroke: ink, lineWidth: 1.2 } });
          const children = [line(api.coord([v(2), v(1)]), api.coord([v(3), v(1)])), line(api.coord([v(0), v(4)]), api.coord([v(0), v(5)]))];
          if (mark.x.length === mark.values.length && mark.x.length > 1) mark.x.forEach((x, at) => {
            if (x === null || mark.values[at] === null) return;
            const [px, py] = api.coord([x * xScale, mark.values[at] * scale]);
            children.push({ type: "circle", shape: { cx: px, cy: py, r: 2.6 }, style: { fill: b.paper, stroke: ink, lineWidth: 1 } });
          });
          const shapes = [
            { type: "circle", shape: { cx, cy, r: 5 } }, { type: "rect", shape: { x: cx - 4.5, y: cy - 4.5, width: 9, height: 9 } },
            { type: "polygon", shape: { points: [[cx, cy - 6], [cx + 6, cy + 4.5], [cx - 6, cy + 4.5]] } },
          ];
          const right = cx > params.coordSys.x + params.coordSys.width * 0.75;
          children.push({ ...shapes[number % 3], style: { fill: ink } }, {
            type: "text", silent: true,
            style: { text: mark.label, x: cx + (right ? -8 : 8), y: cy - 8, align: right ? "right" : "left", verticalAlign: "bottom", fill: b.ink, fontSize: 12 },
          });
          return { type: "group", children };
        },
      };
    });
    const around = (values) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = (high - low || Math.abs(high) || 1) * 0.1;
      return { min: low - room, max: high + room };
    };
    const ends = (which, key, by) => drawn.flatMap((m) => [m[which].mean - m[which].sd, m[which].mean + m[which].sd, ...finite(m.mark[key])]).map((v) => v * by);
    const quiet = { ...b.axis.axisLabel, showMinLabel: false, showMaxLabel: false };
    Object.assign(b.option, {
      grid: { left: 62, right: 18, top: series.length > 1 ? 34 : 12, bottom: 44 },
      legend: legend(series, b, "circle"),
      xAxis: { ...b.axis, ...around(ends("x", "x", xScale)), name: unit(figure.x_label, xPercent), nameGap: 28, axisLabel: quiet },
      yAxis: { ...b.axis, ...around(ends("y", "values", scale)), name: unit(figure.y_label, figure.percent), nameGap: 44, axisLabel: quiet },
      series: all,
    });
    b.option.tooltip.formatter = ({ data: { mark, x, y }, color }) => {
      const text = (s, by, percent) => signed(shown(s.mean * by, percent)) + (s.n > 1 ? ` ± ${shown(s.sd * by, percent)}` : "");
      return tip(mark.label, [[color, mark.series, text(y, scale, figure.percent)], ["", figure.x_label, text(x, xScale, xPercent)]]);
    };
    return b.option;
  };

  const histogram = (figure, classes, counts) => {
    const b = base(figure, { trigger: "axis", axisPointer: { type: "shadow" } });
    Object.assign(b.option, {
      grid: { left: 62, right: 16, top: 12, bottom: 44 },
      xAxis: { ...b.axis, type: "category", data: classes, name: "class, largest first", nameGap: 14, axisLabel: { show: false }, splitLine: { show: false } },
      yAxis: { ...b.axis, scale: false, name: figure.y_label, nameGap: 44 },
      series: [{ type: "bar", data: counts, itemStyle: { color: colour("c0") }, barCategoryGap: "0%", large: false }],
    });
    b.option.tooltip.formatter = ([bar]) => tip(classes[bar.dataIndex], [["", figure.y_label, tick(counts[bar.dataIndex])], ["", "rank", `${bar.dataIndex + 1} of ${classes.length}`]]);
    return b.option;
  };

  const confusion = (figure, classes, counts, width) => {
    const b = base(figure, { trigger: "item" });
    const cells = counts.flatMap((row, truth) => {
      const total = row.reduce((a, v) => a + v, 0);
      return row.map((count, answer) => [answer, truth, total ? count / total : 0, count]);
    });
    const left = Math.min(Math.max(...classes.map((name) => name.length)) * 7.2 + 42, width * 0.3);
    const label = { color: b.ink, fontSize: 11, width: left - 34, overflow: "truncate", formatter: (name) => name };
    const numbers = classes.length <= 12;
    Object.assign(b.option, {
      grid: { left, right: 16, top: 8, bottom: left },
      xAxis: { ...b.axis, type: "category", data: classes, name: "answer", nameGap: left - 20, axisLabel: { ...label, rotate: 90 }, splitLine: { show: false } },
      yAxis: { ...b.axis, type: "category", inverse: true, data: classes, name: "true class", nameGap: left - 14, axisLabel: label, splitLine: { show: false } },
      visualMap: { show: false, type: "continuous", dimension: 2, min: 0, max: 1, inRange: { color: [colour("paper"), colour("c0")] } },
      series: [{
        type: "heatmap", data: cells.map((cell) => ({ value: cell, label: { color: cell[2] > 0.5 ? colour("paper") : b.ink } })), itemStyle: { borderColor: b.grid, borderWidth: numbers ? 1 : 0 },
        label: { show: numbers, formatter: (p) => tick(p.value[3]), fontSize: 11 }, emphasis: { disabled: true },
      }],
    });
    b.option.tooltip.formatter = ({ value: [answer, truth, share, count] }) =>
      tip(`${classes[truth]} → ${classes[answer]}`, [["", answer === truth ? "right" : "taken for it", tick(count)], ["", "of its class", `${(100 * share).toFixed(1)} %`]]);
    return b.option;
  };

  const option = (figure, width) => {
    const d = figure.drawing;
    const scale = figure.percent ? 100 : 1;
    const asLines = (groups) => groups.flatMap((group) => group.values.map((values) => ({ label: group.label, x: values.map((_, at) => at), y: values })));
    switch (d.kind) {
      case "curves": return curves(figure, d.lines, scale);
      case "points": return points(figure, d.marks, scale, d.x_percent ? 100 : 1, d.x_percent);
      case "bars": {
        const names = distinct(d.marks.map((mark) => mark.label));
        const entries = d.marks.flatMap((mark) => {
          const s = stats(mark.values);
          return s ? [{ row: names.indexOf(mark.label), series: mark.series, mean: s.mean, low: s.mean - s.sd, high: s.mean + s.sd, values: mark.values }] : [];
        });
        return rows(figure, names, distinct(d.marks.map((mark) => mark.series)), entries, true, scale, width);
      }
      case "differences": {
        const entries = d.rows.flatMap((row, at) => {
          const s = stats(row.values);
          const i = row.interval ?? (s && { mean: s.mean, low: s.mean, high: s.mean });
          return i ? [{ row: at, series: row.series, mean: i.mean, low: i.low, high: i.high, values: row.values }] : [];
        });
        return rows(figure, d.rows.map((row) => row.label), distinct(d.rows.map((row) => row.series)), entries, false, scale, width);
      }
      case "classes": {
        if (d.classes.length > 40) return curves(figure, asLines(d.groups), scale);
        const entries = d.classes.flatMap((_, row) => d.groups.flatMap((group) => {
          const s = stats(group.values.map((values) => values[row] ?? null));
          return s ? [{ row, series: group.label, mean: s.mean, low: s.mean - s.sd, high: s.mean + s.sd, values: s.list }] : [];
        }));
        return rows(figure, d.classes, d.groups.map((group) => group.label), entries, true, scale, width);
      }
      case "histogram": {
        if (d.classes.length > 40) return histogram(figure, d.classes, d.counts);
        const entries = d.counts.map((count, row) => ({ row, series: "", mean: count, low: count, high: count, values: [] }));
        return rows(figure, d.classes, [""], entries, true, 1, width);
      }
      default: return confusion(figure, d.classes, d.counts, width);
    }
  };

  // Under a finger a pull scrolls the page.
  const fine = !matchMedia("(pointer: coarse)").matches;
  const draw = (element) => {
    const figure = figures[Number(element.dataset.figure)];
    const place = element.querySelector(".live");
    const still = element.querySelector(".still");
    if (!figure || !place || !still?.querySelector("svg")) return;
    let chart = charts.get(figure.name);
    const fresh = !chart;
    if (fresh) {
      const height = Math.max(still.getBoundingClientRect().height, 240);
      element.classList.add("on");
      place.style.height = `${Math.round(height)}px`;
      chart = echarts.init(place, null, { renderer: "svg" });
      charts.set(figure.name, chart);
    }
    chart.setOption(option(figure, place.clientWidth), { notMerge: true });
    if (fine) chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    if (!fresh) return;
    const whole = make("button", "tool", "whole figure");
    whole.type = "button";
    whole.hidden = true;
    const reset = () => {
      const zooms = chart.getOption().dataZoom.map((_, index) => ({ dataZoomIndex: index, start: 0, end: 100 }));
      chart.dispatchAction({ type: "dataZoom", batch: zooms });
    };
    whole.addEventListener("click", reset);
    chart.getZr().on("dblclick", reset);
    chart.on("datazoom", () => {
      whole.hidden = chart.getOption().dataZoom.every((zoom) => !(zoom.start > 0.01 || zoom.end < 99.99));
    });
    element.querySelector(".tools")?.prepend(whole);
    new ResizeObserver(() => {
      if (place.clientWidth && place.clientWidth !== chart.getWidth()) {
        chart.resize();
        chart.setOption(option(figure, place.clientWidth), { notMerge: true });
      }
    }).observe(place);
  };
  function redraw() {
    for (const element of document.querySelectorAll("figure[data-figure].on")) draw(element);
  }
  const near = new IntersectionObserver((seen) => {
    for (const entry of seen.filter((entry) => entry.isIntersecting)) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const element of document.querySelectorAll("figure[data-figure]")) {
    if (typeof echarts !== "undefined") near.observe(element);
    const still = element.querySelector(".still svg");
    if (!still) continue;
    const tools = make("div", "tools");
    const save = make("button", "tool", "SVG");
    save.type = "button";
    save.title = "save this figure as an SVG file";
    save.addEventListener("click", () => {
      const link = make("a");
      const text = new XMLSerializer().serializeToString(still);
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.download = `${figures[Number(element.dataset.figure)]?.name ?? "figure"}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    tools.append(save);
    element.append(tools);
  }
  themed();

  // ---- pictures ----------------------------------------------------------------------------------------------------
  const GAP = 2;
  for (const image of document.querySelectorAll("img[data-frames]")) {
    const frames = Number(image.dataset.frames);
    if (!(frames > 1)) continue;
    const button = make("button", "tool", "▶ play");
    button.type = "button";
    let timer = 0;
    button.addEventListener("click", () => {
      const window_ = image.parentElement;
      if (timer) {
        clearInterval(timer);
        timer = 0;
        window_.style.width = "";
        image.style.transform = "";
        image.style.maxWidth = "";
        button.textContent = "▶ play";
        return;
      }
      // The frames lie side by side: a window as wide as one of them moves along.
      const zoom = image.width / image.naturalWidth;
      const frame = (image.naturalWidth - GAP * (frames - 1)) / frames;
      image.style.maxWidth = "none";
      window_.style.width = `${frame * zoom}px`;
      let at = 0;
      const show = () => {
        image.style.transform = `translateX(${-at * (frame + GAP) * zoom}px)`;
        at = (at + 1) % frames;
      };
      show();
      timer = setInterval(show, 350);
      button.textContent = "■ stop";
    });
    image.closest("figure").append(button);
  }
  const large = document.getElementById("large");
  if (large) {
    for (const image of document.querySelectorAll(".pictures img")) {
      image.addEventListener("click", () => {
        const copy = large.querySelector("img");
        copy.src = image.src;
        copy.alt = image.alt;
        large.querySelector("p").textContent = image.alt;
        large.showModal();
      });
    }
    large.addEventListener("click", () => large.close());
  }

  // A link to a step that is folded away opens what hides it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (target.tagName !== "DETAILS") target.querySelector("details")?.setAttribute("open", "");
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
  root.dataset.ready = "";
})();
