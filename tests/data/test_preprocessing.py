"""The deterministic steps: statistics of the source, one grid map, point-wise intensity."""

from typing import Literal

import nibabel
import numpy as np
import pytest

from medseg.config import validate
from medseg.data.intensity import IntensityConfig, Percentile, Window, ZScore, measure_scales
from medseg.data.preprocessing import CropForeground, Preprocessing, prepare
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Provenance, Segmentation, Volume

LABELS = LabelSet(labels=(Label(name="cube", value=1),))


def phantom(orientation: str = "RAS", spacing: tuple[float, ...] = (1.0, 1.0, 2.0)) -> tuple[Volume, Segmentation]:
    """A cube of 8 x 6 x 4 voxels at one place in the world, stored along any axes."""
    image = np.zeros((20, 18, 10), dtype=np.float32)
    image[4:12, 6:12, 3:7] = 100.0
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-10, 5, 30)
    stored = nibabel.Nifti1Image(image, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(orientation))
    )
    stored = stored.as_reoriented(turn)
    array = np.asarray(stored.dataobj)
    geometry = Geometry(array.shape, stored.affine)
    return Volume(array[None], geometry), Segmentation((array > 0).astype(np.uint8), geometry, LABELS)


def centre_mm(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    return geometry.world(np.argwhere(array > 0.5).astype(float)).mean(axis=0)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "LIA", "AIL"])
def test_every_stored_orientation_gives_the_same_prepared_case(orientation: str) -> None:
    volume, label = phantom(orientation)
    prepared = prepare(volume, Preprocessing(intensity=()), label)
    reference = prepare(*phantom()[:1], Preprocessing(intensity=()), phantom()[1])
    assert prepared.label is not None
    assert reference.label is not None
    assert np.array_equal(prepared.image, reference.image)
    assert np.array_equal(prepared.label, reference.label)
    assert np.allclose(prepared.geometry.affine, reference.geometry.affine)


def test_resampling_keeps_place_and_volume_in_mm3() -> None:
    volume, label = phantom(spacing=(1.0, 1.0, 2.0))
    prepared = prepare(volume, Preprocessing(spacing_mm=(1.0, 1.0, 1.0), intensity=()), label)
    assert prepared.label is not None
    assert np.allclose(prepared.geometry.spacing, 1.0)
    assert np.abs(centre_mm(prepared.label[0], prepared.geometry) - centre_mm(label.array, label.geometry)).max() < 0.51
    found = prepared.label.sum() * prepared.geometry.voxel_volume
    assert abs(found - label.array.sum() * label.geometry.voxel_volume) / found < 0.15


def test_foreground_crop_keeps_every_voxel_where_it_was() -> None:
    volume, label = phantom("LPS")
    prepared = prepare(volume, Preprocessing(crop_foreground=CropForeground(margin=1), intensity=()), label)
    assert prepared.image.shape == (1, 10, 8, 6)
    assert np.allclose(centre_mm(prepared.image[0], prepared.geometry), centre_mm(volume.array[0], volume.geometry))


def test_z_score_has_zero_mean_and_unit_variance_over_the_source() -> None:
    volume, _ = phantom()
    prepared = prepare(volume, Preprocessing(crop_foreground=CropForeground()))
    values = volume.array[0]
    expected = (100.0 - values.mean()) / values.std()
    assert prepared.image.max() == pytest.approx(expected, rel=1e-5)  # measured before the crop


def test_nonzero_z_score_ignores_the_padding() -> None:
    values = np.array([0, 0, 0, 1, 2, 3], dtype=np.float32)
    scale = ZScore(nonzero=True).measure(values)
    assert scale.shift == pytest.approx(2.0)
    assert scale.factor == pytest.approx(1 / np.sqrt(2 / 3))


def test_window_maps_hounsfield_units_to_zero_and_one() -> None:
    scale = Window(low=-100, high=300).measure(np.zeros(1))
    assert np.allclose(scale(np.array([-1000.0, -100.0, 100.0, 300.0, 2000.0])), [0, 0, 0.5, 1, 1])


def test_percentiles_clip_outliers() -> None:
    values = np.append(np.linspace(0, 1, 1000), 1e6).astype(np.float32)
    scale = Percentile(low=1, high=99).measure(values)
    assert scale(values).max() == pytest.approx(1.0)


def test_steps_are_measured_one_after_the_other_and_by_channel() -> None:
    image = np.stack([np.linspace(-500, 500, 1000), np.linspace(0, 1, 1000)]).astype(np.float32)
    first, second = measure_scales(image, [Window(low=0, high=100, channels=(0,)), ZScore()])
    assert len(first) == 2
    assert len(second) == 1
    windowed = np.clip(image[0], 0, 100) / 100
    assert first[1].shift == pytest.approx(windowed.mean(), rel=1e-4)


def test_a_constant_image_stays_finite() -> None:
    grid = Geometry.from_spacing((4, 4, 4), (1.0, 1.0, 1.0))
    prepared = prepare(Volume(np.full((1, 4, 4, 4), 7.0, np.float32), grid), Preprocessing())
    assert np.isfinite(prepared.image).all()


def test_a_label_on_another_grid_is_refused() -> None:
    volume, _ = phantom()
    other = Geometry.from_spacing((20, 18, 10), (1.0, 1.0, 2.0))
    label = Segmentation(np.zeros((20, 18, 10), np.uint8), other, LABELS)
    with pytest.raises(GeometryError, match="resample the label"):
        prepare(volume, Preprocessing(), label)


def test_pictures_pass_without_orientation() -> None:
    grid = Geometry((6, 4), np.diag([1.0, 1.0, 1.0]), "px")
    prepared = prepare(Volume(np.arange(24, dtype=np.uint8).reshape(1, 6, 4), grid), Preprocessing(intensity=()))
    assert np.array_equal(prepared.image[0], np.arange(24).reshape(6, 4))
    assert prepared.geometry.unit == "px"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orientation": "RAX"}, "RAX"),
        ({"orientation": "RRS"}, "RRS"),
        ({"spacing_mm": [1, 1, 0]}, "above 0"),
        ({"intensity": [{"name": "zscore"}]}, "z_score"),
        ({"intensity": [{"name": "window", "low": 10, "high": 5}]}, "below high"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Preprocessing, settings, "test.yaml")


def test_an_intensity_step_must_say_how_it_measures() -> None:
    class Nameless(IntensityConfig):
        name: Literal["nameless"] = "nameless"

    with pytest.raises(TypeError, match="abstract"):
        Nameless()  # type: ignore[abstract]


def test_intensity_of_an_absent_channel_is_refused() -> None:
    volume, _ = phantom()
    named = Volume(volume.array, volume.geometry, Provenance("a.nii.gz"))
    with pytest.raises(DataError, match=r"a\.nii\.gz: intensity\.1 \(window\) names channels \[5\], but there are 1"):
        prepare(named, Preprocessing(intensity=(ZScore(), Window(channels=(0, 5)))))
    with pytest.raises(DataError, match="names channels"):
        measure_scales(volume.array, [ZScore(channels=(1,))])
    with pytest.raises(ConfigError, match=r"intensity\.0\.channels\.0: -1 is refused"):
        validate(Preprocessing, {"intensity": [{"name": "z_score", "channels": [-1]}]}, "here")
