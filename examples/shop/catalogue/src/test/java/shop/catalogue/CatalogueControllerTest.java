package shop.catalogue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.delete;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.put;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.content;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.header;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.hamcrest.Matchers;
import org.junit.jupiter.api.Test;
import org.springframework.http.MediaType;
import org.springframework.test.web.servlet.MockMvc;
import org.springframework.test.web.servlet.setup.MockMvcBuilders;

class CatalogueControllerTest {
    private static final UUID ORDER = UUID.fromString("0b0e7f0e-0000-4000-8000-000000000001");

    /** One shelf with three mugs. */
    private static final class Mugs implements Shelf {
        int stock = 3;
        final List<UUID> released = new ArrayList<>();

        @Override
        public List<Product> products() {
            return List.of(new Product("mug", "Mug", "Holds tea.", "mug", 1250, stock, 10));
        }

        @Override
        public void reserve(UUID order, List<Item> items) {
            int wanted = items.get(0).quantity();
            if (wanted > stock) {
                throw new OutOfStock("too few left of mug");
            }
            stock -= wanted;
        }

        @Override
        public void release(UUID order) {
            released.add(order);
        }
    }

    private final Mugs shelf = new Mugs();
    private final MockMvc web =
            MockMvcBuilders.standaloneSetup(new CatalogueController(shelf)).addFilters(new ServedBy()).build();

    private org.springframework.test.web.servlet.ResultActions reserve(String body) throws Exception {
        return web.perform(put("/internal/reservations/" + ORDER).contentType(MediaType.APPLICATION_JSON).content(body));
    }

    @Test
    void theGoodsAreListedAndTheAnswerSaysWhoGaveIt() throws Exception {
        web.perform(get("/api/catalogue/products"))
                .andExpect(status().isOk())
                .andExpect(header().string("X-Served-By", Matchers.matchesPattern("catalogue/.+; Java \\d.*")))
                .andExpect(content().json("{\"products\":[{\"id\":\"mug\",\"priceCents\":1250,\"stock\":3}]}"));
    }

    @Test
    void goodsThatAreThereAreSetAside() throws Exception {
        reserve("{\"items\":[{\"product\":\"mug\",\"quantity\":2}]}").andExpect(status().isOk());
        assertEquals(1, shelf.stock);
    }

    @Test
    void tooFewGoodsAreAConflictThatSaysOfWhich() throws Exception {
        reserve("{\"items\":[{\"product\":\"mug\",\"quantity\":4}]}")
                .andExpect(status().isConflict())
                .andExpect(content().string("{\"error\":\"too few left of mug\"}"));
        assertEquals(3, shelf.stock);
    }

    @Test
    void aReservationOfNothingOrLessIsRefused() throws Exception {
        for (String body : List.of("{}", "{\"items\":[]}", "{\"items\":[{\"product\":\"mug\",\"quantity\":-1}]}", "{\"items\":[null]}", "{")) {
            reserve(body).andExpect(status().isBadRequest());
        }
        assertEquals(3, shelf.stock);
    }

    @Test
    void aReleaseIsPassedOnByItsOrder() throws Exception {
        web.perform(delete("/internal/reservations/" + ORDER)).andExpect(status().isOk());
        assertEquals(List.of(ORDER), shelf.released);
    }
}
