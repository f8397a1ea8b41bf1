"""Operations of mirrors."""
