"""The layouts that `medseg manifest build` knows; another is a class with `recognises` and `find`, and a line here."""

from medseg.config import Catalogue
from medseg.data.manifest_build.base import Found, LayoutConfig
from medseg.data.manifest_build.bids import BidsLayout
from medseg.data.manifest_build.case_folders import CaseFoldersLayout
from medseg.data.manifest_build.folders import FoldersLayout
from medseg.data.manifest_build.msd import MsdLayout
from medseg.data.manifest_build.nnunet import NnunetLayout

# In the order in which they are tried on a folder: the most telling first.
LAYOUTS = Catalogue[LayoutConfig](
    "layouts", LayoutConfig, [NnunetLayout, MsdLayout, BidsLayout, FoldersLayout, CaseFoldersLayout]
)

__all__ = ["LAYOUTS", "Found", "LayoutConfig"]
