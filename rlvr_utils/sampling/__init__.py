"""Sample responses and evaluate them.

``rollouts`` (start here), ``decoding`` (our loop), ``shared_prefix`` (each prompt is computed once).
"""

from .rollouts import Response, Sampling, encode_prompts, evaluate, has_chat_template, prompts_for, sample_responses
