"""The best figures for models of the base size whose source could be read; none where none is on the same footing."""

from __future__ import annotations

SUN = "[Sun et al. 2019](https://arxiv.org/abs/1905.05583), Table 6"

CLINC = "https://github.com/google/uncertainty-baselines/tree/main/baselines/clinc_intent"

PUBLISHED = {
    "imdb": "0.956 accuracy: BERT-base, further pretrained on the task's own texts, then fine-tuned on all 25,000 "
    f"training texts (error 4.37%; 5.40% without the further pretraining; {SUN}, BERT-ITPT-FiT and BERT-FiT).",
    "ag_news": "0.952 accuracy: BERT-base, further pretrained on the task's own texts, then fine-tuned on all 120,000 "
    f"training texts (error 4.80%; 5.25% without the further pretraining; {SUN}, BERT-ITPT-FiT and BERT-FiT).",
    "clinc150": "0.969 accuracy on the 4,500 test texts that are in scope: BERT-base with SNGP, on all 15,000 training "
    f"texts in scope; 0.965 plainly fine-tuned ([uncertainty-baselines]({CLINC}), table of BERT-base).",
    "sms_spam": "– (there is no official split. [Uddin et al. 2024](https://arxiv.org/abs/2405.08026) report 0.998 "
    "for RoBERTa, but on classes that were balanced by back-translation, so not on these texts.)",
}
