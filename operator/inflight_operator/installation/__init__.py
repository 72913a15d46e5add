"""What the operator keeps of its own installation: who leads, where it answers, its certificates, its APIService."""
