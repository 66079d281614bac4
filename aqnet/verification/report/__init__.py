"""Reports: one offline HTML file of text, tables, pictures and films."""
