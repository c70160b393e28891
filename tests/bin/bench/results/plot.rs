//! The plots: cycles a second over workers, and the claim's latency over the fleet's size.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;
use crate::contender::Kind;
use crate::results::report::Report;

const SIZE: (u32, u32) = (900, 540);

/// A curve: who, and its points.
type Curve = (Kind, Vec<(f64, f64)>);

/// Writes one plot of rates for each fleet, and one of latencies for each number of workers, as far as there are curves.
pub(crate) fn write_all(report: &Report, folder: &Path) -> Result<(), Failure> {
    let all = report.medians();
    let mut fleets: Vec<u32> = all.iter().map(|line| line.0.machines).collect();
    fleets.dedup();
    let mut workers: Vec<usize> = all.iter().map(|line| line.1).collect();
    workers.sort_unstable();
    workers.dedup();
    for machines in &fleets {
        let curves = curves(|kind| {
            let of_kind = all.iter().filter(|line| line.0.machines == *machines && line.2 == kind);
            of_kind.map(|line| (line.1 as f64, line.3.rate)).collect()
        });
        let file = folder.join(format!("rate-{machines}.svg"));
        draw(&file, &format!("{machines} machines"), ["workers", "cycles/s"], &curves)?;
    }
    for workers in &workers {
        let curves = curves(|kind| {
            let of_kind = all.iter().filter(|line| line.1 == *workers && line.2 == kind);
            of_kind
                .map(|line| (f64::from(line.0.machines), line.3.claim_p50))
                .collect()
        });
        let file = folder.join(format!("claim-{workers}.svg"));
        let axes = ["machines", "claim, median, ms"];
        draw(&file, &format!("{workers} workers"), axes, &curves)?;
    }
    Ok(())
}

fn curves(points: impl Fn(Kind) -> Vec<(f64, f64)>) -> Vec<Curve> {
    let curves = Kind::all().map(|kind| (kind, points(kind)));
    curves
        .map(|(kind, points)| (kind, points.into_iter().filter(|point| point.1.is_finite()).collect()))
        .filter(|(_, points): &Curve| !points.is_empty())
        .collect()
}

/// Both axes are logarithmic: what is plotted spans five orders of magnitude. Without a curve of two points there is nothing to see.
fn draw(file: &Path, title: &str, [x, y]: [&str; 2], curves: &[Curve]) -> Result<(), Failure> {
    if curves.iter().all(|(_, points)| points.len() < 2) {
        return Ok(());
    }
    let all = || curves.iter().flat_map(|(_, points)| points);
    let span = |values: &dyn Fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(values).fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        (low / 1.5)..(high * 1.5)
    };
    // The names stand to the right of the curves.
    let across = span(&|point| point.0);
    let across = across.start..(across.end * (across.end / across.start).powf(0.4));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(across.log_scale(), span(&|point| point.1).log_scale())?;
    let number = |value: &f64| value.to_string();
    let mut mesh = chart.configure_mesh();
    mesh.x_label_formatter(&number).y_label_formatter(&number);
    mesh.x_desc(x).y_desc(y).draw()?;
    for (nth, (kind, points)) in curves.iter().enumerate() {
        let color = Palette99::pick(nth).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart.configure_series_labels().border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
