"""What a network is worth: tiers never averaged, figures with their uncertainty, the report and the model card."""
