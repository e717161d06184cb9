"""What a model's filters, gates and memories do to frequencies: numbers first, pictures of them second."""
