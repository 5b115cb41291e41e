"""Every number that Pivot reports: arrays in, floats out, numpy only.

Relevance is an explicit mapping from each query to the indices of its relevant items, never an
order of rows. Equal scores are ranked by index, so a number does not depend on who sorted.
Scores are (q, m): a row is a query, a column a candidate. Ranks count from 0.
"""

from pivot.metrics.classes import accuracy as accuracy
from pivot.metrics.classes import average_precision as average_precision
from pivot.metrics.classes import average_precisions as average_precisions
from pivot.metrics.classes import confusion as confusion
from pivot.metrics.classes import mean_average_precision as mean_average_precision
from pivot.metrics.classes import mean_roc_auc as mean_roc_auc
from pivot.metrics.classes import roc_auc as roc_auc
from pivot.metrics.pivots import pivot_shares as pivot_shares
from pivot.metrics.pivots import pivotability as pivotability
from pivot.metrics.pivots import va_precision_recall as va_precision_recall
from pivot.metrics.ranking import laion_map_at_10 as laion_map_at_10
from pivot.metrics.ranking import laion_median_rank as laion_median_rank
from pivot.metrics.ranking import map_at_10 as map_at_10
from pivot.metrics.ranking import median_rank as median_rank
from pivot.metrics.ranking import precision_at as precision_at
from pivot.metrics.ranking import ranks as ranks
from pivot.metrics.ranking import recall_at as recall_at
from pivot.metrics.ranking import relevant_ranks as relevant_ranks
from pivot.metrics.space import alignment as alignment
from pivot.metrics.space import modality_gap as modality_gap
from pivot.metrics.space import spread as spread
from pivot.metrics.space import uniformity as uniformity
