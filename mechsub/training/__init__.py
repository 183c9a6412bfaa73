"""How members are trained: settings, distillation, removal of directions."""
