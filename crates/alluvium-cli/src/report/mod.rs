//! `alluvium report`: results as one self-contained page.
//!
//! Text and tables are in the page as HTML; its script only draws the charts. Template, style and
//! script lie beside this file, and the plotting library below `vendor`.

mod caveats;
mod charts;
mod escape;
mod findings;
mod groups;
mod model;
mod phrases;
mod sampled;
mod sections;
mod settings;
mod summary;
mod tables;
mod tiles;

use std::path::{Path, PathBuf};

use clap::Args;

use self::charts::Chart;
use self::groups::Group;
use self::model::Model;
use self::sections::{Section, Sections};
use crate::failure::{Failure, Result, io};
use crate::result::{Prices, ResultFile, RunResult};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Results to show, as `load --json`, `compare --json` or another system wrote them. Repetitions of a
    /// run are joined; other runs are compared with native mode
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// Where to write the page
    #[arg(long, short, value_name = "FILE.html", default_value = "report.html")]
    output: PathBuf,
    #[command(flatten)]
    prices: Prices,
}

pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let mut results = Vec::new();
    for file in &args.files {
        if same_file(file, &args.output) {
            return Err(Failure::usage(format!(
                "--output {} would overwrite a result",
                args.output.display()
            )));
        }
        results.extend(ResultFile::read(file)?.results);
    }
    for result in &mut results {
        let measured_s = result.measured_s;
        if let Some(store) = &mut result.store {
            // At this page's prices, whatever those of the run were.
            store.usd_per_month = args.prices.usd_per_month(store, measured_s);
        }
    }
    let page = page(&results, &args.prices)?;
    std::fs::write(&args.output, &page).map_err(io(format!("write {}", args.output.display())))?;
    crate::output::print(&format!("{}: {} run(s), {}", args.output.display(), results.len(), size(&page)))
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn size(page: &str) -> String {
    crate::units::bytes(page.len() as f64)
}

/// The whole page.
fn page(results: &[RunResult], prices: &Prices) -> Result<String> {
    let Sections { measured, restores } = Sections::of(results);
    let all: Vec<Group<'_>> = measured.iter().flat_map(|section| section.groups.iter().cloned()).collect();
    let model = Model::of(&measured);
    let headline = summary::headline(&measured);
    let sections = measured.iter().enumerate().map(|(index, one)| section(one, &model, index, prices));
    Ok(fill(
        include_str!("page.html"),
        &[
            ("version", escape::text(env!("CARGO_PKG_VERSION"))),
            ("title", escape::text(&format!("{headline} – Alluvium"))),
            ("headline", escape::text(&headline)),
            ("lead", escape::text(&summary::lead(&measured))),
            ("warnings", summary::warnings(&all)),
            ("sections", sections.collect()),
            ("restores", tables::restores(&restores)),
            ("model", escape::json(&model)?),
            ("style", include_str!("style.css").to_owned()),
            ("script", include_str!("charts.js").to_owned()),
            ("uplot_css", include_str!("vendor/uplot/uPlot.min.css").to_owned()),
            ("uplot_js", include_str!("vendor/uplot/uPlot.iife.min.js").to_owned()),
            ("uplot_license", escape::text(include_str!("vendor/uplot/LICENSE"))),
        ],
    ))
}

/// All about the runs that did the same work.
fn section(section: &Section<'_>, model: &Model<'_>, index: usize, prices: &Prices) -> String {
    let Section { id, title, groups, baseline } = section;
    let name = title.as_deref().unwrap_or("Results");
    let heading = |title: &String| format!("<h2 class=\"title\">{}</h2>", escape::text(title));
    let of = |title: &String| format!(" of {}", escape::text(title));
    fill(
        include_str!("section.html"),
        &[
            ("id", id.clone()),
            ("name", escape::text(name)),
            ("title", title.as_ref().map(heading).unwrap_or_default()),
            ("of", title.as_ref().map(of).unwrap_or_default()),
            ("legend", legend(groups, model, index)),
            ("tiles", tiles::tiles(groups, *baseline)),
            ("words", summary::words(groups, *baseline)),
            ("shades", summary::shades(groups, model.shades(index))),
            ("charts", figures(model.charts(index), groups)),
            ("restore", tiles::restore(groups, id)),
            ("cost", tables::cost(groups, prices, id)),
            ("figures_about", escape::text(&summary::about_figures(groups, *baseline))),
            ("figures", tables::figures(groups, *baseline)),
            ("settings", tables::settings(groups, id)),
        ],
    )
}

/// Puts values where the template names them, in one pass: what is put in is not looked at again.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        page.push_str(before);
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            page.push_str(value);
        }
        rest = after;
    }
    page + rest
}

/// A button for each group that some chart shows.
fn legend(groups: &[Group<'_>], model: &Model<'_>, section: usize) -> String {
    let first = model.first_group(section);
    let button = |(index, group): (usize, &Group<'_>)| {
        let index = first + index;
        model.draws(index).then(|| {
            format!(
                "<button type=\"button\" class=\"run-{}\" data-group=\"{index}\" aria-pressed=\"true\">{}</button>",
                group.colour,
                escape::text(&group.name)
            )
        })
    };
    groups.iter().enumerate().filter_map(button).collect()
}

/// The places that the script draws into.
fn figures<'m>(charts: impl Iterator<Item = &'m Chart>, groups: &[Group<'_>]) -> String {
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let names = escape::text(&names.join(", "));
    let figure = |chart: &Chart| {
        format!(
            "<figure class=\"chart\"><figcaption><h3>{title}</h3>{about}.</figcaption>\
             <div class=\"plot\" id=\"{id}\" tabindex=\"0\" role=\"application\" aria-label=\"Chart: {title}, of {names}. \
             Arrow keys read out values.\"></div><p class=\"said\" aria-live=\"polite\"></p></figure>\n",
            title = chart.title,
            about = chart.about,
            id = chart.id,
        )
    };
    let html: String = charts.map(figure).collect();
    if html.is_empty() {
        return "<p class=\"about\">These results have no series to draw.</p>".to_owned();
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_the_template_is_not_looked_at_again() {
        let values = [("a", "{{b}}".to_owned()), ("b", "B".to_owned())];
        assert_eq!(fill("x {{a}} y {{b}} z {{", &values), "x {{b}} y B z {{");
    }
}
