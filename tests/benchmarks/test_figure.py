import xml.etree.ElementTree as ET

from memattn.benchmarks.figure import figure
from tests.benchmarks.runs import case, gpu_kernels, kernels

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*cases):
    return ET.fromstring(figure(kernels(*cases)))


def dots(root):
    """By title, the position of each dot and the ends of its bar."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        bar, circle = group.find(f"{SVG}line"), group.find(f"{SVG}circle")
        place = (float(circle.get("cx")), float(bar.get("x1")), float(bar.get("x2")))
        found[group.find(f"{SVG}title").text] = place
    return found


def line(root, style):
    (found,) = (float(e.get("x1")) for e in root.iter(f"{SVG}line") if e.get("class") == style)
    return found


def test_dots_stand_between_the_lines_where_their_ratios_do():
    root = drawn(
        case("sd14_64x64", "fp32", ours=(6.0, 8.5, 9.0)),
        case("sd14_64x64", "bf16", ours=(5.0,) * 3),
    )
    one, target = line(root, "one"), line(root, "target")
    (name, (x, low, high)), (other, (half, *_)) = dots(root).items()
    assert name == "sd14_64x64, fp32: 0.85 (0.72 to 0.88)"
    assert other.startswith("sd14_64x64, bf16: 0.50")
    assert target < low < x < high < one
    assert abs((one - x) - (x - target)) < 0.2  # 0.85 lies half way between 0.70 and 1.00
    assert half < target


def test_a_slow_layer_widens_the_scale_instead_of_leaving_it():
    root = drawn(case("sd14_64x64", "fp32", ours=(30.0,) * 3))
    ((x, _, _),) = dots(root).values()
    assert line(root, "one") < x < float(root.get("width")) - 20


def test_the_picture_brings_its_own_background_for_both_themes():
    text = figure(kernels(case("sd14_64x64", "fp32", ours=(6.0,) * 3)))
    assert "prefers-color-scheme: dark" in text
    assert '<rect class="paper"' in text


def test_on_a_gpu_kernel_times_are_drawn():
    root = ET.fromstring(figure(gpu_kernels(case("sd14_64x64", "bf16", ours=(6.0,) * 3))))
    assert list(dots(root)) == ["sd14_64x64, bf16: 0.40 (0.40 to 0.40)"]  # 3 by 7.5 us
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert any("NVIDIA H200, kernel time with a cold cache" in (text or "") for text in texts)
