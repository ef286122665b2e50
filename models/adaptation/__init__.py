"""Ways to adapt a frozen base network to one task, found by name in this dict: the baselines of TAPS.

Fine-tuning and the feature extractor bound what the others reach (TAPS, Wallingford et al. 2022, Tab. 1, 4 and 10).
"""

from models.adaptation.base import Adaptation
from models.adaptation.freezing import feature_extractor, fine_tuning, manual_freezing, norm_only
from models.adaptation.lora import lora
from models.adaptation.parallel_adapters import parallel_adapters
from models.adaptation.piggyback import piggyback
from models.adaptation.series_adapters import series_adapters

ADAPTATIONS: dict[str, Adaptation] = {
    "fine_tuning": Adaptation(fine_tuning),
    "feature_extractor": Adaptation(feature_extractor, norms=False),
    "norm_only": Adaptation(norm_only),
    "manual_freezing": Adaptation(manual_freezing),
    "lora": Adaptation(lora),
    "piggyback": Adaptation(piggyback, bits=1, decays=False),
    "series_adapters": Adaptation(series_adapters),
    "parallel_adapters": Adaptation(parallel_adapters),
}

__all__ = ["ADAPTATIONS", "Adaptation"]
