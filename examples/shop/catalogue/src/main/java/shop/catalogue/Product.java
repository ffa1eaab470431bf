package shop.catalogue;

/** A product as the API shows it. {@code capacity} is what the shelf holds, so that a page can draw how full it is. */
public record Product(
        String id, String name, String description, String art, int priceCents, int stock, int capacity) {}
