"""What subjects may do: actions, patterns, scopes and the policy."""
