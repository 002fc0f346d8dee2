"""The errors that medseg raises, so that a caller can tell its own mistakes from the data's.

    MedsegError
    ├── ConfigError        a setting, flag or name is wrong, nothing was started
    ├── ManifestError      the list of cases is wrong, or disagrees with its files
    ├── DataError          a file or its content cannot be used
    │   ├── ReadError      the file is absent, damaged or of no known format
    │   ├── GeometryError  grids, spacings or orientations do not fit
    │   ├── LabelError     a label holds values that its LabelSet does not know
    │   └── DicomError     a DICOM object or series breaks a rule
    ├── WriteError         a result could not be written; nothing half-written is left
    ├── ModelError         a trained model is damaged or does not fit its input
    ├── TrainingError      training cannot start or go on
    └── TrackingError      a run could not be recorded

Every message says what was wrong, where (case, file, key, value) and what to do.
"""


class MedsegError(Exception):
    """Something that a person can put right; the message says how."""


class ConfigError(MedsegError):
    """A setting, flag or name is wrong."""


class ManifestError(MedsegError):
    """The list of cases is wrong, or disagrees with its files."""


class DataError(MedsegError):
    """A file or its content cannot be used."""


class ReadError(DataError):
    """A file is absent, damaged or of no known format."""


class GeometryError(DataError):
    """Grids, spacings or orientations do not fit."""


class LabelError(DataError):
    """A label holds values that its LabelSet does not know."""


class DicomError(DataError):
    """A DICOM object or series breaks a rule; never holds a patient's text."""


class WriteError(MedsegError):
    """A result could not be written; nothing half-written is left."""


class ModelError(MedsegError):
    """A trained model is damaged or does not fit its input."""


class TrainingError(MedsegError):
    """Training cannot start or go on."""


class TrackingError(MedsegError):
    """A run could not be recorded."""
