"""What moves in a notebook. Each view has a static twin for papermill, GitHub and the HTML report.

A view is a pure function from the values of its controls to an output (a figure or a table), which is what the tests
call; ``frame.interactive_or_static`` puts the controls above it where somebody can move them, and shows the output for
their first values where nobody can.

===============  =======================  ========================================================
module           view                     what moves
===============  =======================  ========================================================
``text_views``   ``verifier_explorer``    a response and a ground truth; the tiers that decide
``text_views``   ``response_browser``     step, reward, verdict, subject; base beside trained
``grpo_views``   ``advantage_explorer``   the rewards of a group, and the scaling
``grpo_views``   ``clip_explorer``        both epsilons and an advantage; the clip surface
``model_views``  ``lora_explorer``        rank, targets, GPU; trained numbers and memory
``model_views``  ``playground``           your own problem, to the base and to the trained model
``token_views``  ``token_inspector``      step, group, response, loss, update; one step, token by token
``curve_views``  ``projection_explorer``  the cut-off up to which a curve is fitted
``curve_views``  ``LiveReward``           draws itself while the training runs
===============  =======================  ========================================================

Views are imported from their modules, so that a notebook without a model does not wait for PyTorch.
"""
