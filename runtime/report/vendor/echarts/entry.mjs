// What the page needs of ECharts, and nothing else of it: see README.md beside echarts.js.
import * as echarts from "echarts/core";
import { LineChart, BarChart, ScatterChart, HeatmapChart, CustomChart } from "echarts/charts";
import { GridComponent, TooltipComponent, LegendScrollComponent, DataZoomComponent, ToolboxComponent, VisualMapContinuousComponent, MarkLineComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";
import { LabelLayout } from "echarts/features";
echarts.use([LineChart, BarChart, ScatterChart, HeatmapChart, CustomChart, GridComponent, TooltipComponent, LegendScrollComponent, DataZoomComponent, ToolboxComponent, VisualMapContinuousComponent, MarkLineComponent, SVGRenderer, LabelLayout]);
globalThis.echarts = { init: echarts.init };
