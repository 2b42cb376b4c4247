//! The page as a whole.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::Chart;
use super::groups::Group;
use super::model::Model;
use super::sections::{Section, Sections};
use super::{memory, summary, tables, tiles};
use crate::failure::{Failure, Result};
use crate::result::{Prices, RunResult};

const STYLES: [&str; 2] = [include_str!("vendor/uplot/uPlot.min.css"), include_str!("style.css")];
const SCRIPTS: [&str; 2] = [include_str!("vendor/uplot/uPlot.iife.min.js"), include_str!("charts.js")];
const UPLOT_LICENSE: &str = include_str!("vendor/uplot/LICENSE");
/// Nothing is loaded from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
/// Keeps what goes wrong where tests, and whoever wonders, find it.
const ERRORS: &str = r#"
addEventListener("error", (event) => {
  const root = document.documentElement;
  root.dataset.errors = `${root.dataset.errors ? root.dataset.errors + "; " : ""}${event.message}`;
});
"#;

/// The whole page.
pub(super) fn page(results: &[RunResult], prices: &Prices) -> Result<Markup> {
    let Sections { measured, restores } = Sections::of(results);
    let all: Vec<Group<'_>> = measured.iter().flat_map(|section| section.groups.iter().cloned()).collect();
    let model = Model::of(&measured);
    let headline = summary::headline(&measured);
    let version = env!("CARGO_PKG_VERSION");
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "alluvium " (version) };
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (headline) " – Alluvium" }
                style { @for style in STYLES { (PreEscaped(style)) "\n" } }
                script { (PreEscaped(ERRORS)) }
            }
            body {
                header {
                    p class="brand" { "Alluvium " span { "checkpoint report" } }
                    h1 { (headline) }
                    p class="lead" { (summary::lead(&measured)) }
                    (summary::warnings(&all))
                }
                main {
                    @for (index, one) in measured.iter().enumerate() { (section(one, &model, index, prices)) }
                    (tables::restores(&restores))
                }
                footer {
                    p {
                        "Written by alluvium " (version) ". 1 MB = 10" sup { "6" }
                        " bytes. The page loads nothing from anywhere."
                    }
                    details {
                        summary { "Charts by uPlot, under the MIT licence" }
                        pre { (UPLOT_LICENSE) }
                    }
                }
                script type="application/json" id="model" { (json(&model)?) }
                @for script in SCRIPTS { script { "\n" (PreEscaped(script)) "\n" } }
            }
        }
    })
}

/// All about the runs that did the same work.
fn section(section: &Section<'_>, model: &Model<'_>, index: usize, prices: &Prices) -> Markup {
    let Section { id, title, groups, baseline } = section;
    let of = title.as_ref().map(|title| format!(" of {title}")).unwrap_or_default();
    html! {
        section class="work" aria-label=(title.as_deref().unwrap_or("Results")) {
            @if let Some(title) = title { h2 class="title" { (title) } }
            nav class="legend" aria-label={ "Runs shown in the charts" (of) } { (legend(groups, model, index)) }
            section aria-labelledby={ "key" (id) } {
                h2 class="said" id={ "key" (id) } { "Key figures" }
                div class="tiles" { (tiles::tiles(groups, *baseline)) }
            }
            section class="words" { (summary::words(groups, *baseline)) }
            section aria-labelledby={ "charts" (id) } {
                h2 id={ "charts" (id) } { "Over time" }
                p class="about" {
                    (summary::shades(groups, model.shades(index))) " "
                    span class="screen" {
                        "Drag over a chart to zoom, double-click to reset; with the keyboard, move along a chart by the \
                         arrow keys."
                    }
                }
                noscript {
                    p class="warning" { "The charts need JavaScript; all else on this page does not." }
                }
                div class="charts" { (figures(model.charts(index).collect(), groups)) }
            }
            (memory::memory(groups, id))
            (tiles::restore(groups, id))
            (tables::cost(groups, prices, id))
            section aria-labelledby={ "figures" (id) } {
                h2 id={ "figures" (id) } { "All figures" }
                p class="about" { (summary::about_figures(groups, *baseline)) }
                (tables::figures(groups, *baseline))
            }
            (tables::settings(groups, id))
        }
    }
}

/// A button for each group that some chart shows.
fn legend(groups: &[Group<'_>], model: &Model<'_>, section: usize) -> Markup {
    let first = model.first_group(section);
    html! {
        @for (index, group) in groups.iter().enumerate().filter(|(index, _)| model.draws(first + index)) {
            button type="button" class={ "run-" (group.colour) } data-group=(first + index) aria-pressed="true" {
                (group.name)
            }
        }
    }
}

/// The places that the script draws into.
fn figures(charts: Vec<&Chart>, groups: &[Group<'_>]) -> Markup {
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let said = |chart: &Chart| {
        format!("Chart: {}, of {}. Arrow keys read out values.", chart.title, names.join(", "))
    };
    html! {
        @if charts.is_empty() { p class="about" { "These results have no series to draw." } }
        @for chart in charts {
            figure class="chart" {
                figcaption { h3 { (chart.title) } (chart.about) "." }
                div class="plot" id=(chart.id) tabindex="0" role="application" aria-label=(said(chart)) {}
                p class="said" aria-live="polite" {}
            }
        }
    }
}

/// JSON inside a `script` element, where `</script` and `<!--` would end or change it: only strings can
/// hold these characters, and in strings JSON lets them be written by their number.
fn json(data: &impl serde::Serialize) -> Result<Markup> {
    let json = serde_json::to_string(data)
        .map_err(|error| Failure::new(format!("cannot write the charts' data as JSON: {error}")))?;
    Ok(PreEscaped(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_leave_its_script_and_means_the_same() {
        let hostile = "</script><!--<script>&\u{2028}\\\"";
        let written = json(&[hostile]).unwrap().into_string();
        assert!(!written.contains(['<', '>', '&']), "{written}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), [hostile]);
    }
}
