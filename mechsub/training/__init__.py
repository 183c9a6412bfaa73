"""How members are trained: recipes, distillation, removal of directions."""
